"""The brake counts what came within a minute, however many batches it came in, and nothing older."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shared.inbox.parking_breaker import ParkingBreaker
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.telling import stranger
from tests.shared.world import parked

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


def test_what_is_parked_one_by_one_within_a_minute_counts_together() -> None:
    brake = ParkingBreaker()
    for _ in range(19):
        assert not brake.would_trip(1, 1)
        brake.count(1, 1)
    assert brake.would_trip(1, 1), "the twentieth"


def test_what_went_well_within_a_minute_counts_too() -> None:
    brake = ParkingBreaker()
    brake.count(600, 0)
    assert not brake.would_trip(30, 30), "30 of 630"
    assert brake.would_trip(40, 40), "40 of 640"


async def test_what_is_older_than_the_window_counts_no_more() -> None:
    brake = ParkingBreaker(window_s=0.2)
    brake.count(19, 19)
    assert brake.would_trip(1, 1)
    await wait_until(lambda: not brake.would_trip(1, 1))
    brake.count(600, 0)
    assert not brake.would_trip(25, 25)
    await wait_until(lambda: brake.would_trip(25, 25))


async def test_a_flood_of_strangers_puts_the_brake_on_too(pool: Pool) -> None:
    """Another release's records, or a wrong topic: whoever looks at it in time finds nineteen parked, not all."""
    listener = world.consumer(pool)
    applying = asyncio.create_task(listener.apply([stranger(str(n)) for n in range(30)]))
    await wait_until(lambda: listener._metrics.brake._value.get() == 1, 20)
    assert len(await parked(pool)) == 19
    applying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await applying


async def test_strangers_that_lie_there_already_do_not_put_the_brake_on(pool: Pool) -> None:
    listener = world.consumer(pool)
    batch = [stranger(str(n)) for n in range(19)]
    for _ in range(3):
        await asyncio.wait_for(listener.apply(batch), 10)
    assert len(await parked(pool)) == 19
