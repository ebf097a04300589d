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
        self.stood_s = 0.0
        """Seconds that requests have stood at the registry, all together; those that still do not counted."""
        self._earned = 0
        self._starting = True
        self._average = 0.0
        self._quickest = [float("inf"), float("inf")]
        self._quickest_since = self._cut_at = self._measured_from = clock()

    @property
    def standing(self) -> int:
        return len(self._standing)

    def free(self) -> int:
        """How many more may be sent now."""
        now = self._clock()
        while self._standing and next(iter(self._standing.values())) < now - STALE_S:
            self._end(next(iter(self._standing)), now)
        return max(int(self.limit) - len(self._standing), 0)

    def sent(self, keys: Iterable[UUID]) -> None:
        now = self._clock()
        for key in keys:
            self._end(key, now)
            self._standing[key] = now
        if len(self._standing) >= int(self.limit):
            # It was full: the answers to all that stand there now may make it grow.
            self._earned = len(self._standing)

    def answered(self, keys: Iterable[UUID]) -> None:
        """The registry has come to an end with these, whatever it said."""
        now = self._clock()
        sent = [since for key in keys if (since := self._end(key, now)) is not None]
        times = [now - since for since in sent if since >= self._measured_from]
        if not times:
            return
        mean = sum(times) / len(times)
        self._average = mean if self._average == 0.0 else 0.7 * self._average + 0.3 * mean
        if now - self._quickest_since > STALE_S:
            self._measure_again(now)
            return
        self._quickest = [min(quickest, self._average) for quickest in self._quickest]
        if self._average > 3 * self._quickest[0] + SLACK_S:
            self._cut(0.7)
        elif more := min(len(times), self._earned):
            # Doubling at first; afterwards one more each time the whole window has been answered.
            self._earned -= more
            self.limit = min(self.limit + (more if self._starting else more / self.limit), float(self.most))

    def _measure_again(self, now: float) -> None:
        """Forget the older quickest. Where answers have become slower, begin small: is it the registry or our queue?"""
        before, lately = self._quickest
        self._quickest, self._quickest_since = [lately, float("inf")], now
        if lately > 1.5 * before:
            self.limit, self._starting = float(self.least), True
            self._measured_from, self._average, self._earned = now, 0.0, 0

    def lost(self, keys: Iterable[UUID]) -> None:
        """No answer came for these, or not the one that was asked for."""
        now = self._clock()
        for key in keys:
            self._end(key, now)
        self._cut(0.5)

    def _end(self, key: UUID, now: float) -> float | None:
        """It stands there no longer; returns since when it did."""
        since = self._standing.pop(key, None)
        if since is not None:
            self.stood_s += now - since
        return since

    def _cut(self, share: float) -> None:
        now = self._clock()
        if now - self._cut_at < max(self._average, SLACK_S):
            return
        self._cut_at = now
        self._starting = False
        self.limit = max(self.limit * share, float(self.least))
