"""PostgreSQL: the pool, the numbered migrations, and which of its errors pass by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import structlog

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Tx: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
    Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

log = structlog.get_logger(__name__)

MIGRATIONS_LOCK = 7_318_001
TRANSIENT_CLASSES = ("08", "53", "57P", "58", "XX")
"""Connection, resources, shutdown, input/output of the server itself, its inner errors: never the event's fault."""
TRANSIENT_STATES = frozenset({"40001", "40P01", "55P03", "57014", "25006", "25P03", "25P04"})


class NotReady(Exception):
    """The database is not reachable or not migrated yet."""


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help: connection lost, deadlock, no disk or memory, shutdown, time-out."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True  # another process has just migrated a table; asyncpg has forgotten its plans by now
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state in TRANSIENT_STATES or state.startswith(TRANSIENT_CLASSES)
    # InterfaceError is asyncpg's "this connection is gone"; a commit whose outcome is unknown arrives as one too.
    return isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, NotReady))


SESSION = {
    "statement_timeout": "30000",
    "lock_timeout": "10000",
    "idle_in_transaction_session_timeout": "15000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
    "jit": "off",
}


async def open_pool(dsn: str, *, name: str, size: int) -> Pool:
    """A pool of 1 to `size` connections. Raises what `connect` raises when PostgreSQL is down.

    Nothing may change a session it has borrowed: no `set` without `local`, no session lock, no listening.
    """
    return await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size,
        reset=_leave_as_it_is,
        max_inactive_connection_lifetime=15,
        command_timeout=60,
        timeout=5,
        server_settings={"application_name": name, **SESSION},
        setup=_must_write,
    )


async def _leave_as_it_is(_: object) -> None:
    """asyncpg rolls back an open transaction first. Its own four statements more were a tenth of what each use cost."""


async def _must_write(tx: Tx) -> None:
    """Raises NotReady where the session can only read, which ends it: after a failover the next may lead elsewhere."""
    said = tx.get_settings()  # PostgreSQL reports both by itself, and again when they change
    for name in ("in_hot_standby", "default_transaction_read_only"):
        if getattr(said, name, "off") == "on":
            raise NotReady(name)


async def open_connection(dsn: str, *, name: str, silence_s: float) -> asyncpg.Connection[asyncpg.Record]:
    """One connection outside any pool, for session-wide advisory locks and LISTEN.

    PostgreSQL ends it when nothing was asked on it for `silence_s`: keepalives alone are answered by the kernel of a
    process that hangs, and its locks would be held for ever.
    """
    settings = {"application_name": name, **SESSION, "idle_session_timeout": str(round(silence_s * 1000))}
    return await asyncpg.connect(dsn, timeout=5, command_timeout=60, server_settings=settings)


async def migrate(pool: Pool, packages: Iterable[str]) -> None:
    """Apply each package's `migrations/NNNN_name.sql` once, in order, one process at a time.

    `packages` are import names, for example `["shared", "services.intake"]`.
    """
    async with pool.acquire() as tx:
        await tx.execute("set statement_timeout = 0; set lock_timeout = 0")
        await tx.execute("select pg_advisory_lock($1)", MIGRATIONS_LOCK)
        try:
            await tx.execute(
                "create table if not exists migrations"
                " (name text primary key, applied_at timestamptz not null default clock_timestamp())"
            )
            done = {row["name"] for row in await tx.fetch("select name from migrations")}
            for package in packages:
                for file in _numbered(resources.files(package) / "migrations"):
                    name = f"{package}/{file.name}"
                    if name not in done:
                        async with tx.transaction():
                            await tx.execute(file.read_text(encoding="utf-8"))
                            await tx.execute("insert into migrations (name) values ($1)", name)
                        log.info("migration applied", name=name)
        finally:
            await tx.execute("select pg_advisory_unlock($1)", MIGRATIONS_LOCK)
            await tx.execute("reset statement_timeout; reset lock_timeout")


def _numbered(folder: Traversable) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)


async def wait_for_pool(dsn: str, *, name: str, size: int) -> Pool:
    """`open_pool`, tried until PostgreSQL answers. A wrong password or database raises: waiting would not help."""
    pause = 0.1
    while True:
        try:
            return await open_pool(dsn, name=name, size=size)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("PostgreSQL is not there yet", error=type(error).__name__, again_in_s=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5.0)
