"""What nobody holds any more is found by the clock: soon while there is little to do, rarely while there is much."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from itertools import count

import pytest
from fastapi import FastAPI

from shared.service import Part, create_app
from shared.telemetry import gc_timer
from tests.fixtures.databases import MakePool
from tests.fixtures.waiting import wait_until
from tests.shared.test_service import service_on


class Circle:
    """Only the collector can find out that nobody holds it."""

    def __init__(self) -> None:
        self.itself = self


def dropped() -> weakref.ref[Circle]:
    return weakref.ref(Circle())


@pytest.fixture(autouse=True)
def python_by_itself_does_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = gc.get_threshold()
    monkeypatch.setattr(gc_timer, "_looks", count(1))
    gc.collect()
    gc.set_threshold(0)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    gc.collect()


def test_while_there_is_little_to_do_each_look_finds_what_was_dropped() -> None:
    for _ in range(3):
        circle = dropped()
        assert circle() is not None
        gc_timer.look()
        assert circle() is None


def test_while_batches_are_under_way_only_a_look_in_many_goes_through_them() -> None:
    batch = [[n] for n in range(2 * gc_timer.BUSY)]
    circle, looks = dropped(), 0
    while circle() is not None:
        gc_timer.look()
        looks += 1
    assert looks == gc_timer.BUSY_LOOK
    assert batch


def test_what_has_grown_old_is_found_now_and_then() -> None:
    grown = Circle()
    gc.collect()
    circle, looks = weakref.ref(grown), 0
    del grown
    while circle() is not None:
        gc_timer.look()
        looks += 1
    assert looks == gc_timer.EVERYTHING


def test_from_the_start_on_only_the_clock_looks_and_what_is_loaded_is_left_alone() -> None:
    gc.set_threshold(700, 10, 10)
    gc_timer.by_the_clock()
    assert gc.get_freeze_count() > 10_000
    circle = dropped()
    batch = [[n] for n in range(100_000)]
    assert circle() is not None, "a batch does not set the collector off"
    gc_timer.look()
    del batch
    gc_timer.look()
    assert circle() is None


async def test_a_service_looks_beside_its_figures(make_pool: MakePool) -> None:
    dsn, _ = await make_pool.with_dsn("shared", "services.intake")
    app: FastAPI = create_app(service_on(dsn), Part(migrations=["shared"]))
    async with app.router.lifespan_context(app):
        circle = dropped()
        await wait_until(lambda: circle() is None, 20, what="somebody looks")
