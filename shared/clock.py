"""Office time, which the law and the calendar use. Leases, retries and latencies use wall time.

In production office time is wall time. In the demo it runs faster, the same in every process, so that a week takes two
minutes: office = office0 + (wall - wall0) * speed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shared.contract.zone import VIETNAM

__all__ = ["VIETNAM", "OfficeClock", "wall_now"]


@dataclass(frozen=True, slots=True)
class OfficeClock:
    """`office0` and `wall0` (seconds since 1970) are the same moment. `speed`: office seconds per wall second."""

    office0: datetime
    wall0: float
    speed: float = 1.0

    @classmethod
    def real(cls) -> OfficeClock:
        """A clock whose office time is wall time."""
        return cls(datetime.fromtimestamp(0, VIETNAM), 0.0, 1.0)

    @classmethod
    def of(cls, office0: datetime | None, wall0: float | None, speed: float) -> OfficeClock:
        """A clock as the settings say; without `office0` or `wall0` it is `real`."""
        if office0 is None or wall0 is None:
            return cls.real()
        return cls(office0.astimezone(VIETNAM), wall0, speed)

    def now(self) -> datetime:
        """Office time now."""
        return self.at(time.time())

    def at(self, wall: float) -> datetime:
        """Office time at a wall time (seconds since 1970)."""
        return self.office0 + timedelta(seconds=(wall - self.wall0) * self.speed)

    def wall(self, office: datetime) -> float:
        """Wall time (seconds since 1970) of an office time."""
        return self.wall0 + (office - self.office0).total_seconds() / self.speed


def wall_now() -> datetime:
    """Wall time, for envelopes, leases and latencies."""
    return datetime.now(UTC)
