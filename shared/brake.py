"""When too much would be put aside at once, something is wrong with us and not with the records."""

from __future__ import annotations

import time
from collections import deque


class Brake:
    """Above 5 % and at least 20 parked within a minute, parking stops and a person is called."""

    def __init__(self, *, share: float = 0.05, least: int = 20, window_s: float = 60.0) -> None:
        self.share, self.least, self.window_s = share, least, window_s
        self._seen: deque[tuple[float, int, int]] = deque()

    def would_trip(self, handled: int, parked: int) -> bool:
        since = time.monotonic() - self.window_s
        while self._seen and self._seen[0][0] < since:
            self._seen.popleft()
        handled += sum(row[1] for row in self._seen)
        parked += sum(row[2] for row in self._seen)
        return parked >= self.least and parked > self.share * handled

    def count(self, handled: int, parked: int) -> None:
        self._seen.append((time.monotonic(), handled, parked))

    def reset(self) -> None:
        self._seen.clear()
