"""Several writes in one round trip: as parts of one statement, and by COPY where there are many rows.

The time of a small batch is the time of its round trips, and asyncpg sends one statement at a time. Each part sees the
tables as they were before all parts, and PostgreSQL may execute the parts in any order. So each row belongs to one part
only, and locks that need an order are taken before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

PARAMETER = re.compile(r"\$(\d+)")
MIN_COPY_ROWS = 500
"""From so many new rows on COPY is used: it costs less for each row, and one or two more round trips."""


class Bulk(NamedTuple):
    """Rows for COPY. `first`: a statement with its one value, to be executed before."""

    table: str
    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    first: tuple[str, Any] | None = None


class Writes:
    """Collects the statements that end a transaction, each with its own `$1, $2 …`; `run` sends them."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, int]] = []
        self._values: list[Any] = []
        self._bulks: list[Bulk] = []

    def add(self, statement: str, *values: Any) -> None:
        """Add an insert, update or delete."""
        self._parts.append((statement, len(values)))
        self._values += values

    def insert(self, table: str, columns: Mapping[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
        """Add new rows. `columns`: name -> PostgreSQL type, in the order of each row's values."""
        if len(rows) >= MIN_COPY_ROWS:
            self.copy(Bulk(table, tuple(columns), rows))
        elif rows:
            self.add(
                _insert_statement(table, tuple(columns.items())), *(list(column) for column in zip(*rows, strict=True))
            )

    def copy(self, bulk: Bulk) -> None:
        """Add rows for COPY. They are written after all statements, in the order in which they are added."""
        self._bulks.append(bulk)

    async def run(self, tx: Tx) -> None:
        """Execute what was added since the last run, in the caller's transaction. Raises what any part raises."""
        parts, values, bulks = tuple(self._parts), self._values, self._bulks
        self._parts, self._values, self._bulks = [], [], []
        if parts:
            await tx.execute(_one_statement(parts), *values)
        for bulk in bulks:
            if bulk.first is not None:
                await tx.execute(*bulk.first)
            await tx.copy_records_to_table(bulk.table, columns=list(bulk.columns), records=bulk.rows)


@lru_cache(maxsize=64)
def _insert_statement(table: str, columns: tuple[tuple[str, str], ...]) -> str:
    names = ", ".join(name for name, _ in columns)
    arrays = ", ".join(f"${number}::{type}[]" for number, (_, type) in enumerate(columns, 1))
    return f"insert into {table} ({names}) select {names} from unnest({arrays}) as r ({names})"


@lru_cache(maxsize=256)
def _one_statement(parts: tuple[tuple[str, int], ...]) -> str:
    if len(parts) == 1:
        return parts[0][0]
    before, named = 0, []
    for number, (statement, values) in enumerate(parts):
        named.append(f"part_{number} as ({_renumbered(statement, before)})")
        before += values
    return f"with {', '.join(named)} select 1"


def _renumbered(statement: str, before: int) -> str:
    """The statement with `before` added to the number of each parameter."""
    return PARAMETER.sub(lambda found: f"${int(found.group(1)) + before}", statement)
