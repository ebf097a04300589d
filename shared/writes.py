"""Several writes in one round trip: parts of one statement, which PostgreSQL carries out together.

A small batch costs its round trips and little else, and the client library sends one statement at a time. Every part
sees the tables as they were before all of them, and their order is not defined: so a row belongs to one part, and what
must be locked in an order is locked before.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.database import Tx

PLACE = re.compile(r"\$(\d+)")


class Writes:
    """Statements put together one by one, each with its own `$1, $2 …`; `run` sends them."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, int]] = []
        self._values: list[Any] = []

    def add(self, statement: str, *values: Any) -> None:
        """An insert, update or delete without a `with` of its own."""
        self._parts.append((statement, len(values)))
        self._values += values

    async def run(self, tx: Tx) -> None:
        """Carry out what was added since the last time. Raises what any of them raises; then none has happened."""
        parts, values = tuple(self._parts), self._values
        self._parts, self._values = [], []
        if parts:
            await tx.execute(_together(parts), *values)


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
