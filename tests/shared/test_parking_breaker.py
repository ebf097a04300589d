"""The parking breaker counts the records of the last minute, in one batch or in many, and nothing older."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shared.inbox.parking_breaker import ParkingBreaker
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.records import foreign_record
from tests.shared.world import parked

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


def test_records_parked_one_by_one_within_a_minute_count_together() -> None:
    breaker = ParkingBreaker()
    for _ in range(19):
        assert not breaker.would_trip(1, 1)
        breaker.count(1, 1)
    assert breaker.would_trip(1, 1), "the twentieth"


def test_records_applied_within_a_minute_count_too() -> None:
    breaker = ParkingBreaker()
    breaker.count(600, 0)
    assert not breaker.would_trip(30, 30), "30 of 630"
    assert breaker.would_trip(40, 40), "40 of 640"


async def test_records_older_than_the_window_do_not_count() -> None:
    breaker = ParkingBreaker(window_s=0.2)
    breaker.count(19, 19)
    assert breaker.would_trip(1, 1)
    await wait_until(lambda: not breaker.would_trip(1, 1))
    breaker.count(600, 0)
    assert not breaker.would_trip(25, 25)
    await wait_until(lambda: breaker.would_trip(25, 25))


async def test_a_flood_of_foreign_records_trips_the_breaker_too(pool: Pool) -> None:
    """As when another release or a wrong topic brings foreign records: nineteen are parked, not all."""
    consumer = world.consumer(pool)
    applying = asyncio.create_task(consumer.apply([foreign_record(str(n)) for n in range(30)]))
    await wait_until(lambda: consumer._metrics.brake._value.get() == 1, 20)
    assert len(await parked(pool)) == 19
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying


async def test_foreign_records_that_are_parked_already_do_not_trip_the_breaker(pool: Pool) -> None:
    consumer = world.consumer(pool)
    batch = [foreign_record(str(n)) for n in range(19)]
    for _ in range(3):
        await asyncio.wait_for(consumer.apply(batch), 10)
    assert len(await parked(pool)) == 19
