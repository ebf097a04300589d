"""How many requests may stand unanswered at the registry: grows while answers come quickly, shrinks when they do not.

What is bounded is requests and not calls, because one call carries hundreds: a registry that serves them one after the
other would keep a birth waiting behind every check it has been given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from uuid import UUID

STALE_S = 10.0
"""A request without an answer for so long no longer counts: a registry that takes days must not stop newcomers."""
SLACK_S = 0.2
"""Waiting this much longer than thrice the quickest is no sign of a queue at the registry."""


class Window:
    """Additive increase, multiplicative decrease, between `least` and `most` requests. Times in wall seconds."""

    def __init__(self, least: int, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.least, self.most, self._clock = min(least, most), most, clock
        self.limit = float(self.least)
        self._standing: dict[UUID, float] = {}
        self._scarce = False
        self._starting = True
        self._average = 0.0
        self._quickest = [float("inf"), float("inf")]
        self._quickest_since = self._cut_at = clock()

    @property
    def standing(self) -> int:
        return len(self._standing)

    def free(self) -> int:
        """How many more may be sent now."""
        stale = self._clock() - STALE_S
        while self._standing and next(iter(self._standing.values())) < stale:
            del self._standing[next(iter(self._standing))]
        free = max(int(self.limit) - len(self._standing), 0)
        self._scarce = self._scarce or free == 0
        return free

    def sent(self, keys: Iterable[UUID]) -> None:
        now = self._clock()
        for key in keys:
            self._standing.pop(key, None)
            self._standing[key] = now

    def answered(self, keys: Iterable[UUID]) -> None:
        """The registry has come to an end with these, whatever it said."""
        now = self._clock()
        times = [now - since for key in keys if (since := self._standing.pop(key, None)) is not None]
        if not times:
            return
        mean = sum(times) / len(times)
        self._average = mean if self._average == 0.0 else 0.7 * self._average + 0.3 * mean
        if now - self._quickest_since > STALE_S:
            self._quickest = [self._quickest[1], float("inf")]
            self._quickest_since = now
        self._quickest = [min(quickest, self._average) for quickest in self._quickest]
        if self._average > 3 * self._quickest[0] + SLACK_S:
            self._cut(0.7)
        elif self._scarce:
            # Doubling at first; afterwards one more each time the whole window has been answered.
            self.limit = min(self.limit + (len(times) if self._starting else len(times) / self.limit), float(self.most))
            self._scarce = False

    def lost(self, keys: Iterable[UUID]) -> None:
        """No answer came for these, or not the one that was asked for."""
        for key in keys:
            self._standing.pop(key, None)
        self._cut(0.5)

    def _cut(self, share: float) -> None:
        now = self._clock()
        if now - self._cut_at < max(self._average, SLACK_S):
            return
        self._cut_at = now
        self._starting = False
        self.limit = max(self.limit * share, float(self.least))
