"""Which errors are transient, and that migrations run once even if many processes start together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

import shared
from deploy.local.ports import free_port
from shared.postgres import migrate
from shared.postgres import pool as database
from shared.postgres.transient import NotReady, is_transient

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import Databases

TRANSIENT = {
    "08000", "08003", "08006", "08P01", "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "53000",
    "53100", "53200", "53300", "25006", "25P03", "25P04", "58030", "XX000",
}  # fmt: skip
LASTING = {"22001", "22003", "22021", "23502", "23503", "23505", "23514", "42601", "42703", "42P01", "28P01", "3D000"}


@pytest.mark.parametrize("state", sorted(TRANSIENT | LASTING))
def test_each_sqlstate_is_tried_again_or_parked_as_the_rule_says(state: str) -> None:
    error = asyncpg.PostgresError.new({"C": state, "M": "text"})
    assert is_transient(error) == (state in TRANSIENT)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (asyncpg.InterfaceError("closed"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (NotReady(), True),
        (asyncpg.InvalidCachedStatementError("plan"), True),
        (ValueError("no"), False),
        (KeyError("no"), False),
    ],
)
def test_errors_of_the_connection_are_transient_and_bugs_are_not(error: Exception, transient: bool) -> None:
    assert is_transient(error) == transient


@pytest.mark.parametrize(
    ("statement", "argument"),
    [
        ("select $1::int", 2**40),
        ("select $1::text", "\x00"),
        ("select $1::text", "\ud800"),
        ("select $1::timestamptz", "yesterday"),
        ("select $1::int / 0", 1),
    ],
)
async def test_an_error_about_a_value_is_not_transient(pool: Pool, statement: str, argument: object) -> None:
    """asyncpg has two errors with one name; the one for a wrong argument must not count as a lost connection."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the class is up to asyncpg
        await pool.fetchval(statement, argument)
    assert not is_transient(raised.value)


async def test_a_killed_connection_a_timeout_and_a_lock_timeout_are_transient(pool: Pool) -> None:
    async def kill_me() -> None:
        async with pool.acquire() as tx:
            pid = await tx.fetchval("select pg_backend_pid()")
            await pool.execute("select pg_terminate_backend($1)", pid)
            await tx.execute("select 1")

    async def too_slow() -> None:
        async with pool.acquire() as tx, tx.transaction():
            await tx.execute("set local statement_timeout = 20")
            await tx.execute("select pg_sleep(5)")

    async def locked_out() -> None:
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute("lock table lanes")
            async with pool.acquire() as tx, tx.transaction():
                await tx.execute("set local lock_timeout = 20")
                await tx.execute("select * from lanes")

    for cause in (kill_me, too_slow, locked_out):
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the class is up to asyncpg
            await cause()
        assert is_transient(raised.value), raised.value


async def test_after_a_table_is_migrated_under_a_running_process_the_second_try_succeeds(pool: Pool) -> None:
    await pool.execute("create table t (a int)")
    async with pool.acquire() as tx:
        await tx.fetch("select * from t")
        await pool.execute("alter table t add column b int")
        with pytest.raises(asyncpg.PostgresError) as raised:
            async with tx.transaction():
                await tx.fetch("select * from t")
        assert is_transient(raised.value)
        async with tx.transaction():
            await tx.fetch("select * from t")


async def test_a_server_that_does_not_answer_is_waited_for() -> None:
    waiting = asyncio.create_task(
        database.wait_for_pool(f"postgresql://x:y@127.0.0.1:{free_port()}/z", name="t", size=1)
    )
    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    waiting.cancel()
    assert not done


async def test_a_wrong_password_is_not_waited_for(databases: Databases) -> None:
    dsn = databases.postgres.dsn("postgres", "postgres", "wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncio.wait_for(database.wait_for_pool(dsn, name="t", size=1), 5)


async def test_migrations_run_once_when_processes_start_together(databases: Databases) -> None:
    dsn = await databases.create()
    pools = [await database.open_pool(dsn, name="t", size=1) for _ in range(5)]
    try:
        await asyncio.gather(*(migrate.migrate(pool, ["shared"]) for pool in pools))
        rows = await pools[0].fetch("select name from migrations order by name")
        files = sorted((Path(shared.__file__).parent / "migrations").glob("*.sql"))
        assert files
        assert [row[0] for row in rows] == [f"shared/{file.name}" for file in files]
        assert await pools[0].fetchval("select count(*) from lanes") == 12
    finally:
        for pool in pools:
            pool.terminate()
        await databases.drop(dsn)


async def test_a_migration_that_fails_leaves_nothing_behind(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:

    class Broken:
        name = "9999_broken.sql"

        def read_text(self, encoding: str) -> str:
            return "create table half (a int); select 1/0"

    monkeypatch.setattr(migrate, "_numbered", lambda folder: [Broken()])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(pool, ["shared"])
    assert await pool.fetchval("select to_regclass('half')") is None
    assert await pool.fetchval("select count(*) from migrations where name like '%broken%'") == 0
    assert await pool.fetchval("show lock_timeout") == "10s"
