"""Leased work: rows of a table that workers take, each for a bounded time, and never two of them the same row at once.

Taking a row moves its due time into the future (the lease) and counts `tries` up, committed before any work is done. A
worker that dies leaves the row to the next one. Whoever writes an outcome does so only where `tries` is still what it
took: the latest to take a row decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


@dataclass(frozen=True)
class LeasedTable:
    """How to take due rows of one table, which has an integer column `tries`.

    `open_rows` is an SQL condition on the rows that may be taken; it may use $3, $4 … `assignments` is what taking
    changes beside the due time and `tries`. `returning` are the columns wanted as they are afterwards, `before` those
    wanted as they were.
    """

    table: str
    key: tuple[str, ...]
    due_at: str
    open_rows: str
    assignments: str
    returning: tuple[str, ...]
    before: tuple[str, ...] = ()

    @cached_property
    def take(self) -> str:
        """SQL: $1 the most rows to take, $2 the lease in seconds."""
        taken = ", ".join((*self.key, *self.before))
        same = " and ".join(f"t.{column} = due.{column}" for column in self.key)
        shown = ", ".join(f"{'due' if column in self.before else 't'}.{column}" for column in self.returning)
        # Materialized: a plain subquery may be run once per row, and would then take more than its limit. now(), not
        # clock_timestamp(): only a stable function can bound the scan of an index.
        return f"""
          with due as materialized (
            select {taken} from {self.table}
             where {self.open_rows} and {self.due_at} <= now()
             order by {self.due_at} limit $1 for update skip locked)
          update {self.table} t
             set tries = t.tries + 1, {self.due_at} = clock_timestamp() + $2 * interval '1 second', {self.assignments}
            from due where {same}
          returning {shown}
        """

    async def take_due(self, pool: Pool, limit: int, lease_s: float, *arguments: Any) -> Sequence[Any]:
        """Up to `limit` rows, longest due first, leased for `lease_s` wall seconds. Committed when this returns."""
        return await pool.fetch(self.take, limit, lease_s, *arguments)


async def wait_for(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for new work; whether the event came within `timeout_s` seconds."""
    try:
        # Not asyncio.wait_for: in Python 3.11 it can swallow a cancellation that comes with the event.
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
