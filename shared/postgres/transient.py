"""Which errors are transient: trying again later may help, and no event or request is at fault."""

from __future__ import annotations

import asyncpg

TRANSIENT_CLASSES = ("08", "53", "57P", "58", "XX")
"""SQLSTATE classes: connection, resources, shutdown, the server's own input and output, its internal errors."""
TRANSIENT_STATES = frozenset({"40001", "40P01", "55P03", "57014", "25006", "25P03", "25P04"})


class NotReady(Exception):
    """The database is not reachable or not migrated yet."""


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help: connection lost, deadlock, no disk or memory, shutdown, timeout."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True  # another process has migrated a table, and asyncpg has dropped the old plans by now
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state in TRANSIENT_STATES or state.startswith(TRANSIENT_CLASSES)
    # asyncpg raises InterfaceError for a lost connection, and so for a commit whose outcome is unknown.
    return isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, NotReady))
