"""Office time and wall time can be converted into each other."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.clock import VIETNAM, OfficeClock

FRIDAY = datetime(2026, 2, 13, 8, 0, tzinfo=VIETNAM)


@given(st.floats(0, 1e7), st.sampled_from([1.0, 60.0, 600.0, 0.5]))
def test_converting_to_wall_time_and_back_gives_the_same_time(seconds: float, speed: float) -> None:
    clock = OfficeClock(FRIDAY, 1_000_000.0, speed)
    assert abs(clock.wall(clock.at(1_000_000.0 + seconds)) - (1_000_000.0 + seconds)) < 0.001


def test_ten_wall_minutes_at_speed_600_are_a_hundred_office_hours() -> None:
    clock = OfficeClock(FRIDAY, 5_000.0, 600.0)
    assert clock.at(5_600.0) == FRIDAY + timedelta(hours=100)


def test_without_settings_office_time_is_vietnamese_wall_time() -> None:
    for clock in (OfficeClock.real(), OfficeClock.of(None, None, 600.0), OfficeClock.of(FRIDAY, None, 2.0)):
        assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=1)
        assert clock.now().utcoffset() == timedelta(hours=7)


def test_an_office_start_given_in_another_zone_is_the_same_moment() -> None:
    clock = OfficeClock.of(FRIDAY.astimezone(UTC), time.time(), 1.0)
    assert clock.office0 == FRIDAY
    assert clock.office0.utcoffset() == timedelta(hours=7)
