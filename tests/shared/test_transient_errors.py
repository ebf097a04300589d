"""The consumer during real transient errors of PostgreSQL: it tries again, and parks, loses or repeats nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from shared.contract.envelope import Received
from shared.postgres.pool import open_pool
from shared.postgres.writes import Writes
from tests.fixtures.troubles import KINDS, trouble
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.records import record
from tests.shared.world import doubles, effects, held, parked

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx
    from tests.fixtures.databases import MakePool

Database = tuple[str, "Pool"]


@pytest_asyncio.fixture
async def database(make_pool: MakePool) -> Database:
    """A fresh database's address and a pool on it."""
    dsn, pool = await make_pool.with_dsn("shared")
    await pool.execute(world.TABLE)
    return dsn, pool


async def assert_all_took_effect_once(pool: Pool, dossiers: Sequence[Any]) -> None:
    assert sorted(await effects(pool)) == sorted((dossier_id, 1) for dossier_id in dossiers)
    assert (await parked(pool), await held(pool), await doubles(pool)) == ([], {}, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_simulated_trouble_raises_the_error_that_it_is_named_after(kind: str, database: Database) -> None:
    dsn, pool = database
    async with trouble(dsn, kind, "effects") as met:
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as raised:
            await pool.execute("insert into effects (note) values ('')")
        # When the server ends a session, the client may see only that the connection has ended.
        ends = {"08003", None} if kind.startswith("57P01") else set()
        assert getattr(raised.value, "sqlstate", None) in {kind[:5], *ends}
        assert await met.met() == 1
    await pool.execute("insert into effects (note) values ('')")


@pytest.mark.parametrize("table", ["effects", "heads", "applied"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_consumer_tries_the_batch_again_until_the_trouble_is_over(
    kind: str, table: str, database: Database
) -> None:
    dsn, pool = database
    dossiers = [uuid4() for _ in range(20)]
    async with trouble(dsn, kind, table) as met:
        applying = asyncio.create_task(world.consumer(pool).apply([record(dossier_id, 1) for dossier_id in dossiers]))
        await met.until_met(3)
        assert not applying.done()
        assert (await effects(pool), await parked(pool)) == ([], [])
    await asyncio.wait_for(applying, 20)
    await assert_all_took_effect_once(pool, dossiers)


class InterruptedEffects(world.Effects):
    """A unit of work that calls `interrupt` with its connection after its effects are written."""

    def __init__(self, interrupt: Callable[[Tx], Any]) -> None:
        super().__init__()
        self._interrupt = interrupt

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Any]:
        events = await super().save(tx, writes)
        await self._interrupt(tx)
        return events


async def assert_transient(pool: Pool, expected: tuple[str, ...], interrupt: Callable[[Tx], Any]) -> None:
    """Run `interrupt` once, after the effects are written; it must end in one of the `expected` errors."""
    errors: list[str] = []

    async def once(tx: Tx) -> None:
        if not errors:
            try:
                await interrupt(tx)
            except Exception as error:
                errors.append(getattr(error, "sqlstate", None) or type(error).__name__)
                raise

    async def open_unit(tx: Tx, events: Sequence[Received]) -> world.Effects:
        await world.open_unit(tx, events)
        return InterruptedEffects(once)

    dossiers = [uuid4() for _ in range(4)]
    batch = [record(dossier_id, 1) for dossier_id in dossiers]
    await asyncio.wait_for(world.consumer(pool, open_unit=open_unit).apply(batch), 20)
    assert len(errors) == 1
    assert errors[0] in expected
    await assert_all_took_effect_once(pool, dossiers)


async def test_a_real_statement_timeout_is_transient(database: Database) -> None:
    async def interrupt(tx: Tx) -> None:
        await tx.execute("set local statement_timeout = '50ms'")
        await tx.execute("select pg_sleep(20)")

    await assert_transient(database[1], ("57014",), interrupt)


async def test_a_real_lock_timeout_is_transient(database: Database) -> None:
    dsn, pool = database
    await pool.execute("create table occupied ()")
    holder = await asyncpg.connect(dsn)
    await holder.execute("begin; lock table occupied")

    async def interrupt(tx: Tx) -> None:
        await tx.execute("set local lock_timeout = '50ms'")
        try:
            await tx.execute("select from occupied")
        finally:
            await holder.close()

    await assert_transient(pool, ("55P03",), interrupt)


async def test_an_idle_in_transaction_timeout_is_transient(database: Database) -> None:
    """As when the process was frozen or its machine suspended."""
    dsn, pool = database

    async def interrupt(tx: Tx) -> None:
        pid = await tx.fetchval("select pg_backend_pid()")
        await tx.execute("set idle_in_transaction_session_timeout = '50ms'")
        watcher = await asyncpg.connect(dsn)

        async def ended() -> bool:
            return not await watcher.fetchval("select count(*) from pg_stat_activity where pid = $1", pid)

        await wait_until(ended)
        await watcher.close()
        await tx.execute("select 1")

    # The error depends on whether the client reads the server's last message before it sees the connection closed.
    await assert_transient(pool, ("25P03", "08003", "InterfaceError", "ConnectionResetError"), interrupt)


async def test_a_real_deadlock_is_transient(database: Database) -> None:
    dsn, pool = database
    other = await asyncpg.connect(dsn)
    await other.execute("set deadlock_timeout = '10s'; begin; select pg_advisory_xact_lock(88)")
    crossing: list[asyncio.Task[Any]] = []

    async def other_waits() -> bool:
        return bool(await pool.fetchval("select count(*) from pg_locks where locktype = 'advisory' and not granted"))

    async def interrupt(tx: Tx) -> None:
        await tx.execute("select pg_advisory_xact_lock(99)")
        crossing.append(asyncio.create_task(other.execute("select pg_advisory_xact_lock(99)")))
        await wait_until(other_waits)
        await tx.execute("select pg_advisory_xact_lock(88)")

    await assert_transient(pool, ("40P01",), interrupt)
    await crossing[0]
    await other.close()


async def test_a_real_serialization_failure_is_transient(database: Database) -> None:
    """As when an administrator has made repeatable read the default."""
    dsn, pool = database
    await pool.execute("insert into dossiers select gen_random_uuid()")
    await pool.execute(f"alter database {dsn.rpartition('/')[2]} set default_transaction_isolation = 'repeatable read'")
    stricter = await open_pool(dsn, name="test", size=2)

    async def interrupt(tx: Tx) -> None:
        await pool.execute("update dossiers set answers = answers + 1 where answers = 0")
        await tx.execute("update dossiers set answers = answers + 1")

    try:
        await assert_transient(stricter, ("40001",), interrupt)
    finally:
        stricter.terminate()
