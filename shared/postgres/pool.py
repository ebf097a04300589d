"""The pool of connections, single connections outside it, and the settings of every session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import structlog

from shared.postgres.transient import NotReady, is_transient

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Tx: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
    Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

log = structlog.get_logger(__name__)

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
    """A pool of 1 to `size` connections. Raises what asyncpg's `connect` raises when PostgreSQL is down.

    Nobody may change the session of a borrowed connection: no `set` without `local`, no session lock, no LISTEN.
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
    """Replaces asyncpg's reset of a returned connection; an open transaction is rolled back all the same.

    The reset sends four statements for each use (docs/performance.md), and nobody changes a session.
    """


async def _must_write(tx: Tx) -> None:
    """Raises NotReady in a session that can only read. The pool then opens another, which may reach a new primary."""
    settings = tx.get_settings()  # PostgreSQL reports both settings by itself, and again when they change
    for name in ("in_hot_standby", "default_transaction_read_only"):
        if getattr(settings, name, "off") == "on":
            raise NotReady(name)


async def open_connection(dsn: str, *, name: str, silence_s: float) -> asyncpg.Connection[asyncpg.Record]:
    """A connection outside the pool, for session locks and LISTEN.

    PostgreSQL ends it after `silence_s` seconds without a statement, so that a process that hangs loses its locks: the
    kernel of such a process still answers the keepalives.
    """
    settings = {"application_name": name, **SESSION, "idle_session_timeout": str(round(silence_s * 1000))}
    return await asyncpg.connect(dsn, timeout=5, command_timeout=60, server_settings=settings)


async def wait_for_pool(dsn: str, *, name: str, size: int) -> Pool:
    """`open_pool`, tried again until PostgreSQL answers. Raises errors that are not transient, as a wrong password."""
    pause = 0.1
    while True:
        try:
            return await open_pool(dsn, name=name, size=size)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("PostgreSQL does not answer yet", error=type(error).__name__, again_in_s=pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5.0)
