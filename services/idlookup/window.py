"""An adaptive limit on the requests without an answer at the registry, like TCP's congestion window.

It counts requests and not calls, because one call carries hundreds: a registry that serves requests one after another
would keep a birth waiting behind every check it has accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from uuid import UUID

STALE_S = 10.0
"""A request without an answer for so long is no longer counted: a registry that takes days must not stop new ones."""
SLACK_S = 0.2
"""How much an answer may exceed three times the shortest latency before the registry counts as overloaded."""


class Window:
    """Additive increase, multiplicative decrease (AIMD), between `min_limit` and `max_limit`. Times in wall seconds."""

    def __init__(self, min_limit: int, max_limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.min_limit, self.max_limit, self._clock = min(min_limit, max_limit), max_limit, clock
        self.limit = float(self.min_limit)
        self._sent_at: dict[UUID, float] = {}
        """In the order of sending."""
        self.busy_s = 0.0
        """The sum of the seconds that requests were in flight, without those still in flight."""
        self._growth_left = 0
        """How many answers may still raise the limit: the window was full when their requests were sent."""
        self._slow_start = True
        """The limit grows by one per answer, until the first decrease."""
        self._latency_s = 0.0
        """Moving average; 0 before the first answer."""
        self._min_latencies_s = [float("inf"), float("inf")]
        """The smallest average of the previous and present, and of the present period of `STALE_S`."""
        self._period_began_at = self._decreased_at = self._measured_from = clock()

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        return len(self._sent_at)

    def free(self) -> int:
        """How many more requests may be sent now."""
        now = self._clock()
        while self._sent_at and next(iter(self._sent_at.values())) < now - STALE_S:
            self._remove(next(iter(self._sent_at)), now)
        return max(int(self.limit) - len(self._sent_at), 0)

    def sent(self, keys: Iterable[UUID]) -> None:
        """Count requests that are being sent; those sent again count once."""
        now = self._clock()
        for key in keys:
            self._remove(key, now)
            self._sent_at[key] = now
        if len(self._sent_at) >= int(self.limit):
            self._growth_left = len(self._sent_at)

    def answered(self, keys: Iterable[UUID]) -> None:
        """The registry gave its final answer to these requests: adjust the limit by how long that took."""
        now = self._clock()
        sent_at = [at for key in keys if (at := self._remove(key, now)) is not None]
        latencies_s = [now - at for at in sent_at if at >= self._measured_from]
        if not latencies_s:
            return
        mean_s = sum(latencies_s) / len(latencies_s)
        self._latency_s = mean_s if self._latency_s == 0.0 else 0.7 * self._latency_s + 0.3 * mean_s
        if now - self._period_began_at > STALE_S:
            self._begin_period(now)
            return
        self._min_latencies_s = [min(least_s, self._latency_s) for least_s in self._min_latencies_s]
        if self._latency_s > 3 * self._min_latencies_s[0] + SLACK_S:
            self._decrease(0.7)
        elif growth := min(len(latencies_s), self._growth_left):
            self._growth_left -= growth
            # After the slow start the limit grows by one per full window of answers.
            raised = self.limit + (growth if self._slow_start else growth / self.limit)
            self.limit = min(raised, float(self.max_limit))

    def _begin_period(self, now: float) -> None:
        """Forget the older minimum. Where latency grew, begin small, to learn whether our own queue is the reason."""
        before_s, lately_s = self._min_latencies_s
        self._min_latencies_s, self._period_began_at = [lately_s, float("inf")], now
        if lately_s > 1.5 * before_s:
            self.limit, self._slow_start = float(self.min_limit), True
            self._measured_from, self._latency_s, self._growth_left = now, 0.0, 0

    def lost(self, keys: Iterable[UUID]) -> None:
        """No answer came for these requests, or to a question about others: decrease the limit."""
        now = self._clock()
        for key in keys:
            self._remove(key, now)
        self._decrease(0.5)

    def _remove(self, key: UUID, now: float) -> float | None:
        """Stop counting a request; returns when it was sent, None when it was not counted."""
        sent_at = self._sent_at.pop(key, None)
        if sent_at is not None:
            self.busy_s += now - sent_at
        return sent_at

    def _decrease(self, factor: float) -> None:
        """At most once per latency: losses that come together have one cause."""
        now = self._clock()
        if now - self._decreased_at < max(self._latency_s, SLACK_S):
            return
        self._decreased_at = now
        self._slow_start = False
        self.limit = max(self.limit * factor, float(self.min_limit))
