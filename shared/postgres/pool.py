"""PostgreSQL: the pool of connections, a connection of one's own, and the settings of every session."""

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
