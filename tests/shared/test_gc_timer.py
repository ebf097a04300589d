"""The garbage collector runs on a timer: often while the process is idle, rarely while it is busy."""

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
    """Refers to itself, so that only the garbage collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def dropped() -> weakref.ref[Circle]:
    """A weak reference to an object that nothing else refers to."""
    return weakref.ref(Circle())


@pytest.fixture(autouse=True)
def no_collection_by_allocations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = gc.get_threshold()
    monkeypatch.setattr(gc_timer, "_runs", count(1))
    gc.collect()
    gc.set_threshold(0)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    gc.collect()


def test_while_the_process_is_idle_each_run_frees_dropped_objects() -> None:
    for _ in range(3):
        circle = dropped()
        assert circle() is not None
        gc_timer.run_due()
        assert circle() is None


def test_while_batches_are_in_progress_only_one_run_in_many_collects() -> None:
    batch = [[n] for n in range(2 * gc_timer.BUSY_OBJECTS)]
    circle, runs = dropped(), 0
    while circle() is not None:
        gc_timer.run_due()
        runs += 1
    assert runs == gc_timer.BUSY_EVERY
    assert batch


def test_old_objects_are_freed_by_every_full_collection() -> None:
    old_object = Circle()
    gc.collect()
    circle, runs = weakref.ref(old_object), 0
    del old_object
    while circle() is not None:
        gc_timer.run_due()
        runs += 1
    assert runs == gc_timer.FULL_EVERY


def test_after_the_start_only_the_timer_collects_and_loaded_objects_are_frozen() -> None:
    gc.set_threshold(700, 10, 10)
    gc_timer.start()
    assert gc.get_freeze_count() > 10_000
    circle = dropped()
    batch = [[n] for n in range(100_000)]
    assert circle() is not None, "a batch does not start the collector"
    gc_timer.run_due()
    del batch
    gc_timer.run_due()
    assert circle() is None


async def test_a_service_runs_the_timer_with_its_gauges(make_pool: MakePool) -> None:
    dsn, _ = await make_pool.with_dsn("shared", "services.intake")
    app: FastAPI = create_app(service_on(dsn), Part(migrations=["shared"]))
    async with app.router.lifespan_context(app):
        circle = dropped()
        await wait_until(lambda: circle() is None, 20, what="the timer runs")
