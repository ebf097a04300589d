"""When too much would be put aside at once, something is wrong with us and not with the records."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.contract.envelope import Received
    from shared.postgres.pool import Tx

Aside = tuple["Received", str, str, bool]
"""(event, reason, detail, whether it blocks its dossier's sequence): what a plan would park."""


class ParkingBreaker:
    """Above 5 % and at least 20 parked within a minute, parking stops and a person is called."""

    def __init__(self, *, share: float = 0.05, least: int = 20, window_s: float = 60.0) -> None:
        self.share, self.least, self.window_s = share, least, window_s
        self._seen: deque[tuple[float, int, int]] = deque()
        self._handled = self._parked = 0

    def would_trip(self, handled: int, parked: int) -> bool:
        since = time.monotonic() - self.window_s
        while self._seen and self._seen[0][0] < since:
            _, no_longer_handled, no_longer_parked = self._seen.popleft()
            self._handled -= no_longer_handled
            self._parked -= no_longer_parked
        handled, parked = handled + self._handled, parked + self._parked
        return parked >= self.least and parked > self.share * handled

    def count(self, handled: int, parked: int) -> None:
        self._seen.append((time.monotonic(), handled, parked))
        self._handled += handled
        self._parked += parked

    def reset(self) -> None:
        self._seen.clear()
        self._handled = self._parked = 0


async def list_news(tx: Tx, park: Sequence[Aside]) -> list[Aside]:
    """Without the impostors that lie there already: each time the log is read again they come again, and some dozens
    of them would hold up everybody else for ever.
    """
    if not park:
        return []
    digests = [event.record.digest() for event, *_ in park]
    rows = await tx.fetch(
        "select digest from parked where topic = any($1::text[]) and digest = any($2::bytea[])",
        list({event.topic for event, *_ in park}),
        digests,
    )
    known = {row["digest"] for row in rows}
    return [row for row, digest in zip(park, digests, strict=True) if row[3] or digest not in known]
