"""The breaker: after several failures in a row nobody calls for a while, then one probe tries."""

from __future__ import annotations

import time
from collections.abc import Callable

STATES = ("closed", "open", "half_open")


class CircuitBreaker:
    """Closed until `failures` in a row; open for `rest_s` (doubling to `most_s`); then half-open for one probe."""

    def __init__(
        self,
        *,
        failures: int = 5,
        rest_s: float = 0.5,
        most_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures, self._first_rest, self._most, self._clock = failures, rest_s, most_s, clock
        self._in_a_row = 0
        self._rest = rest_s
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    def allow(self) -> bool:
        """Whether a call may be made now. In half-open only one may, until it is reported or released."""
        if self.state == "half_open" and not self._probing:
            self._probing = True
            return True
        return self.state == "closed"

    def rest_s(self) -> float:
        """Wall seconds until a call may be tried; 0 when one may now."""
        return 0.0 if self._open_until is None else max(self._open_until - self._clock(), 0.0)

    def succeeded(self) -> None:
        self._in_a_row, self._rest, self._open_until, self._probing = 0, self._first_rest, None, False

    def failed(self) -> None:
        """A failure of a call made before it opened changes nothing while it is open."""
        self._in_a_row += 1
        if self._probing or (self._open_until is None and self._in_a_row >= self._failures):
            self._open_until = self._clock() + self._rest
            self._rest = min(self._rest * 2, self._most)
            self._probing = False

    def released(self) -> None:
        """A permitted call was not made after all."""
        self._probing = False
