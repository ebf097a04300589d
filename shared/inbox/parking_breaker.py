"""Stops parking when too many records would be parked at once: then hoso is wrong, not the records."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.inbox.sequence import Park

if TYPE_CHECKING:
    from shared.postgres.pool import Tx


class ParkingBreaker:
    """Trips when, within `window_s`, at least `min_parked` records and more than `share` of all would be parked."""

    def __init__(self, *, share: float = 0.05, min_parked: int = 20, window_s: float = 60.0) -> None:
        self.share, self.min_parked, self.window_s = share, min_parked, window_s
        self._recent: deque[tuple[float, int, int]] = deque()
        self._handled = self._parked = 0

    def would_trip(self, handled: int, parked: int) -> bool:
        """Whether a batch of `handled` records, `parked` of them to be parked, would be too much now."""
        since = time.monotonic() - self.window_s
        while self._recent and self._recent[0][0] < since:
            _, old_handled, old_parked = self._recent.popleft()
            self._handled -= old_handled
            self._parked -= old_parked
        handled, parked = handled + self._handled, parked + self._parked
        return parked >= self.min_parked and parked > self.share * handled

    def count(self, handled: int, parked: int) -> None:
        """Count a batch that is committed."""
        self._recent.append((time.monotonic(), handled, parked))
        self._handled += handled
        self._parked += parked

    def reset(self) -> None:
        """Forget what was counted."""
        self._recent.clear()
        self._handled = self._parked = 0


async def list_new(tx: Tx, park: Sequence[Park]) -> list[Park]:
    """Leave out the events that block nothing and are parked already.

    They come again each time the log is read again; counted each time, a few dozen would trip the breaker for ever.
    """
    if not park:
        return []
    digests = [row.event.record.digest() for row in park]
    rows = await tx.fetch(
        "select digest from parked where topic = any($1::text[]) and digest = any($2::bytea[])",
        list({row.event.topic for row in park}),
        digests,
    )
    known = {row["digest"] for row in rows}
    return [row for row, digest in zip(park, digests, strict=True) if row.blocks or digest not in known]
