"""The consumer waits while PostgreSQL refuses sessions, and the pool drops sessions that can only read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import pytest_asyncio

from shared.postgres import pool as database
from shared.postgres.transient import is_transient
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.records import record
from tests.shared.world import effects, parked

if TYPE_CHECKING:
    from shared.contract.envelope import Record
    from shared.inbox.consumer import Consumer
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import MakePool

SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'narrow'"


class LimitedDatabase:
    """A database with an administrator's pool and a service's pool. The service's role has limits, a superuser none."""

    def __init__(self, dsn: str, admin: Pool, ours: Pool) -> None:
        self.dsn, self.admin, self.ours = dsn, admin, ours
        self.name = dsn.rpartition("/")[2]

    async def end_sessions(self) -> None:
        await self.admin.execute(SESSIONS)


@pytest_asyncio.fixture
async def limited(make_pool: MakePool) -> AsyncIterator[LimitedDatabase]:
    dsn, admin = await make_pool.with_dsn("shared")
    await admin.execute(world.TABLE)
    await admin.execute("create role narrow login password 'narrow'")
    await admin.execute("grant all on all tables in schema public, proof to narrow")
    await admin.execute("grant all on schema public, proof to narrow")
    await admin.execute("grant all on all sequences in schema public to narrow")
    ours = await database.open_pool(f"postgresql://narrow:narrow@{dsn.rpartition('@')[2]}", name="test", size=4)
    yield LimitedDatabase(dsn, admin, ours)
    ours.terminate()
    await admin.execute("drop owned by narrow; drop role narrow")


async def transient_error_of(pool: Pool) -> str:
    """The error with which the next session is refused; it must be transient."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the class is checked below
        await pool.execute("insert into effects (note) values ('try')")
    assert is_transient(raised.value), repr(raised.value)
    return str(getattr(raised.value, "sqlstate", type(raised.value).__name__))


class Tries:
    """Counts how often a consumer's batch has failed."""

    def __init__(self, consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failed = 0
        apply_all = consumer._apply_all

        async def watched(records: Sequence[Record]) -> None:
            try:
                await apply_all(records)
            except Exception:
                self.failed += 1
                raise

        monkeypatch.setattr(consumer, "_apply_all", watched)


async def test_too_many_connections_are_transient(limited: LimitedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    await limited.admin.execute("alter role narrow connection limit 0")
    await limited.end_sessions()
    errors = [await transient_error_of(limited.ours) for _ in range(6)]
    assert "53300" in errors
    dossiers, consumer = [uuid4() for _ in range(4)], world.consumer(limited.ours)
    tries = Tries(consumer, monkeypatch)
    applying = asyncio.create_task(consumer.apply([record(d, 1) for d in dossiers]))
    await wait_until(lambda: tries.failed >= 2)
    assert not applying.done()
    await limited.admin.execute("alter role narrow connection limit -1")
    await asyncio.wait_for(applying, 20)
    assert sorted(await effects(limited.admin)) == sorted((d, 1) for d in dossiers)
    assert await parked(limited.admin) == []


async def test_a_session_that_can_only_read_is_given_up_for_one_that_can_write(
    limited: LimitedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover: a session to the former primary would stay read-only for ever."""
    consumer = world.consumer(limited.ours)
    tries = Tries(consumer, monkeypatch)
    await limited.admin.execute(f"alter database {limited.name} set default_transaction_read_only = on")
    await limited.end_sessions()

    async def is_read_only() -> bool:
        return await transient_error_of(limited.ours) == "NotReady"

    await wait_until(is_read_only)
    dossiers = [uuid4() for _ in range(4)]
    applying = asyncio.create_task(consumer.apply([record(d, 1) for d in dossiers]))
    await wait_until(lambda: tries.failed >= 2)
    assert not applying.done()
    await limited.admin.execute("set default_transaction_read_only = off")
    await limited.admin.execute(f"alter database {limited.name} reset default_transaction_read_only")
    # The sessions opened meanwhile are not ended.
    await asyncio.wait_for(applying, 10)
    assert sorted(await effects(limited.admin)) == sorted((d, 1) for d in dossiers)
    assert await parked(limited.admin) == []
