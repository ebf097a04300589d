"""Several writes in one round trip: parts of one statement, which PostgreSQL carries out together; many rows by COPY.

A small batch costs its round trips and little else, and the client library sends one statement at a time. Every part
sees the tables as they were before all of them, and their order is not defined: so a row belongs to one part, and what
must be locked in an order is locked before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

PLACE = re.compile(r"\$(\d+)")


MANY = 500
"""So many new rows go by COPY: each costs PostgreSQL and us less, and all of them a round trip or two more."""


class Bulk(NamedTuple):
    """Rows for COPY. `first`: a statement and its one value, carried out before them."""

    table: str
    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    first: tuple[str, Any] | None = None


class Writes:
    """Statements put together one by one, each with its own `$1, $2 …`; `run` sends them."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, int]] = []
        self._values: list[Any] = []
        self._bulks: list[Bulk] = []

    def add(self, statement: str, *values: Any) -> None:
        """An insert, update or delete without a `with` of its own."""
        self._parts.append((statement, len(values)))
        self._values += values

    def insert(self, table: str, columns: Mapping[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
        """New rows. `columns`: their names and PostgreSQL's types, in the order of each row's values."""
        if len(rows) >= MANY:
            self.copy(Bulk(table, tuple(columns), rows))
        elif rows:
            self.add(_insertion(table, tuple(columns.items())), *(list(column) for column in zip(*rows, strict=True)))

    def copy(self, bulk: Bulk) -> None:
        """Rows for COPY: written after all statements, in the order in which they were given."""
        self._bulks.append(bulk)

    async def run(self, tx: Tx) -> None:
        """Carry out what was added since the last time, in a transaction. Raises what any of them raises."""
        parts, values, bulks = tuple(self._parts), self._values, self._bulks
        self._parts, self._values, self._bulks = [], [], []
        if parts:
            await tx.execute(_together(parts), *values)
        for bulk in bulks:
            if bulk.first is not None:
                await tx.execute(*bulk.first)
            await tx.copy_records_to_table(bulk.table, columns=list(bulk.columns), records=bulk.rows)


@lru_cache(maxsize=64)
def _insertion(table: str, columns: tuple[tuple[str, str], ...]) -> str:
    names = ", ".join(name for name, _ in columns)
    arrays = ", ".join(f"${number}::{type}[]" for number, (_, type) in enumerate(columns, 1))
    return f"insert into {table} ({names}) select {names} from unnest({arrays}) as r ({names})"


@lru_cache(maxsize=256)
def _together(parts: tuple[tuple[str, int], ...]) -> str:
    if len(parts) == 1:
        return parts[0][0]
    before, named = 0, []
    for number, (statement, values) in enumerate(parts):
        named.append(f"part_{number} as ({_renumbered(statement, before)})")
        before += values
    return f"with {', '.join(named)} select 1"


def _renumbered(statement: str, before: int) -> str:
    return PLACE.sub(lambda place: f"${int(place.group(1)) + before}", statement)
