"""Sessions that PostgreSQL refuses are waited for, and sessions that can only read are not kept."""

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
from tests.shared.telling import record
from tests.shared.world import effects, parked

if TYPE_CHECKING:
    from shared.contract.envelope import Record
    from shared.inbox.consumer import Consumer
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import MakePool

SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'narrow'"


class Place:
    """A database, an administrator's pool, and a service's pool with its own role: a superuser has no limits."""

    def __init__(self, dsn: str, admin: Pool, ours: Pool) -> None:
        self.dsn, self.admin, self.ours = dsn, admin, ours
        self.name = dsn.rpartition("/")[2]

    async def throw_out(self) -> None:
        await self.admin.execute(SESSIONS)


@pytest_asyncio.fixture
async def place(make_pool: MakePool) -> AsyncIterator[Place]:
    dsn, admin = await make_pool.with_dsn("shared")
    await admin.execute(world.TABLE)
    await admin.execute("create role narrow login password 'narrow'")
    await admin.execute("grant all on all tables in schema public, proof to narrow")
    await admin.execute("grant all on schema public, proof to narrow")
    await admin.execute("grant all on all sequences in schema public to narrow")
    ours = await database.open_pool(f"postgresql://narrow:narrow@{dsn.rpartition('@')[2]}", name="test", size=4)
    yield Place(dsn, admin, ours)
    ours.terminate()
    await admin.execute("drop owned by narrow; drop role narrow")


async def a_passing_error(pool: Pool) -> str:
    """The error with which the next session is refused; it must be transient."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - which it is, is the answer
        await pool.execute("insert into effects (note) values ('try')")
    assert is_transient(raised.value), repr(raised.value)
    return str(getattr(raised.value, "sqlstate", type(raised.value).__name__))


class Tries:
    """How often a consumer has failed with its batch."""

    def __init__(self, consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.in_vain = 0
        apply_all = consumer._apply_all

        async def watched(records: Sequence[Record]) -> None:
            try:
                await apply_all(records)
            except Exception:
                self.in_vain += 1
                raise

        monkeypatch.setattr(consumer, "_apply_all", watched)


async def test_too_many_connections_are_transient(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.admin.execute("alter role narrow connection limit 0")
    await place.throw_out()
    said = [await a_passing_error(place.ours) for _ in range(6)]
    assert "53300" in said
    dossiers, consumer = [uuid4() for _ in range(4)], world.consumer(place.ours)
    tries = Tries(consumer, monkeypatch)
    applying = asyncio.create_task(consumer.apply([record(d, 1) for d in dossiers]))
    await wait_until(lambda: tries.in_vain >= 2)
    assert not applying.done()
    await place.admin.execute("alter role narrow connection limit -1")
    await asyncio.wait_for(applying, 20)
    assert sorted(await effects(place.admin)) == sorted((d, 1) for d in dossiers)
    assert await parked(place.admin) == []


async def test_a_session_that_can_only_read_is_given_up_for_one_that_can_write(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover: a session to the former primary would stay read-only for ever."""
    consumer = world.consumer(place.ours)
    tries = Tries(consumer, monkeypatch)
    await place.admin.execute(f"alter database {place.name} set default_transaction_read_only = on")
    await place.throw_out()

    async def is_read_only() -> bool:
        return await a_passing_error(place.ours) == "NotReady"

    await wait_until(is_read_only)
    dossiers = [uuid4() for _ in range(4)]
    applying = asyncio.create_task(consumer.apply([record(d, 1) for d in dossiers]))
    await wait_until(lambda: tries.in_vain >= 2)
    assert not applying.done()
    await place.admin.execute("set default_transaction_read_only = off")
    await place.admin.execute(f"alter database {place.name} reset default_transaction_read_only")
    # The sessions opened meanwhile are not ended.
    await asyncio.wait_for(applying, 10)
    assert sorted(await effects(place.admin)) == sorted((d, 1) for d in dossiers)
    assert await parked(place.admin) == []
