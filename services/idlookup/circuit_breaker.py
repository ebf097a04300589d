"""A circuit breaker: after several failures in a row no calls are made for a while; then one probe tries."""

from __future__ import annotations

import time
from collections.abc import Callable

STATES = ("closed", "open", "half_open")


class CircuitBreaker:
    """Closed until `failures` in a row; open for `rest_s` (doubled up to `max_rest_s`); then half-open for one probe.

    Seconds are wall seconds.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        rest_s: float = 0.5,
        max_rest_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_failures, self._first_rest_s, self._max_rest_s, self._clock = failures, rest_s, max_rest_s, clock
        self._failures_in_a_row = 0
        self._next_rest_s = rest_s
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    def allow(self) -> bool:
        """Whether a call may be made now. Half-open allows one call, until its result or `release` is recorded."""
        if self.state == "half_open" and not self._probing:
            self._probing = True
            return True
        return self.state == "closed"

    def rest_s(self) -> float:
        """Seconds until a call may be tried; 0 when it may be tried now."""
        return 0.0 if self._open_until is None else max(self._open_until - self._clock(), 0.0)

    def record_success(self) -> None:
        """A call was answered: closed."""
        self._failures_in_a_row, self._next_rest_s = 0, self._first_rest_s
        self._open_until, self._probing = None, False

    def record_failure(self) -> None:
        """A call failed. While open, the failure of a call that began earlier does not lengthen the rest."""
        self._failures_in_a_row += 1
        if self._probing or (self._open_until is None and self._failures_in_a_row >= self._max_failures):
            self._open_until = self._clock() + self._next_rest_s
            self._next_rest_s = min(self._next_rest_s * 2, self._max_rest_s)
            self._probing = False

    def release(self) -> None:
        """A call that `allow` permitted is not made: another may be."""
        self._probing = False
