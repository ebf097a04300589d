"""The window of requests at the registry, against a registry next_state of arithmetic."""

from __future__ import annotations

from uuid import UUID

from services.idlookup.window import STALE_S, Window
from shared.contract.envelope import new_id


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def keys(number: int) -> list[UUID]:
    return [new_id() for _ in range(number)]


def serve(window: Window, clock: Clock, *, rounds: int, latency_s: float) -> None:
    """Fill the window `rounds` times; each time all requests are answered after `latency_s`."""
    for _ in range(rounds):
        sent = keys(window.free())
        window.sent(sent)
        clock.now += latency_s
        window.answered(sent)


def max_in_flight(window: Window, clock: Clock, *, seconds: int, latency_s: float, capacity_per_s: int) -> int:
    """Keep the window full against a registry that answers `capacity_per_s` requests per second, oldest first.

    Returns the most requests in flight in the second half. A step is a hundredth of a second, as in the worker.
    """
    queue: list[tuple[float, UUID]] = []
    allowance, most = 0.0, 0
    for tick in range(seconds * 100):
        sent = keys(window.free())
        window.sent(sent)
        queue += [(clock.now, key) for key in sent]
        clock.now += 0.01
        allowance = min(allowance + capacity_per_s / 100, max(1.0, capacity_per_s / 20))
        ready = 0
        while ready < len(queue) and ready + 1 <= allowance and queue[ready][0] + latency_s <= clock.now:
            ready += 1
        allowance -= ready
        window.answered([key for _, key in queue[:ready]])
        del queue[:ready]
        most = max(most, window.in_flight) if tick > seconds * 50 else 0
    window.answered([key for _, key in queue])
    return most


def test_it_grows_quickly_while_answers_come_quickly_and_no_further_than_allowed() -> None:
    clock = Clock()
    window = Window(8, 1000, clock=clock)
    serve(window, clock, rounds=4, latency_s=0.02)
    assert window.limit >= 100
    serve(window, clock, rounds=20, latency_s=0.02)
    assert window.limit == 1000


def test_it_does_not_grow_while_it_is_not_full() -> None:
    clock = Clock()
    window = Window(8, 1000, clock=clock)
    for _ in range(50):
        sent = keys(2)
        assert window.free() > 2
        window.sent(sent)
        clock.now += 0.01
        window.answered(sent)
    assert window.limit == 8


def test_a_registry_with_little_capacity_keeps_a_short_queue() -> None:
    clock = Clock()
    window = Window(8, 1000, clock=clock)
    # At most a few seconds' work. Without decreases it would be 1,000, and without new periods soon 1,000 again.
    assert max_in_flight(window, clock, seconds=60, latency_s=0.02, capacity_per_s=100) <= 120
    assert max_in_flight(window, clock, seconds=60, latency_s=0.02, capacity_per_s=10) <= 80
    assert max_in_flight(window, clock, seconds=60, latency_s=0.02, capacity_per_s=2000) > 100


def test_a_registry_that_is_always_slow_does_not_count_as_overloaded() -> None:
    clock = Clock()
    window = Window(8, 1000, clock=clock)
    serve(window, clock, rounds=20, latency_s=0.02)
    serve(window, clock, rounds=60, latency_s=2.0)
    assert window.limit > 100


def test_when_answers_become_slow_it_shrinks_at_once() -> None:
    clock = Clock()
    window = Window(8, 1000, clock=clock)
    serve(window, clock, rounds=20, latency_s=0.02)
    serve(window, clock, rounds=5, latency_s=1.0)
    assert window.limit < 500


def test_answers_lost_together_halve_it_once() -> None:
    clock = Clock()
    window = Window(8, 1000, clock=clock)
    serve(window, clock, rounds=20, latency_s=0.02)
    clock.now += 1.0
    for key in keys(50):
        window.lost([key])
    assert window.limit == 500
    for _ in range(20):
        clock.now += 1.0
        window.lost([])
    assert window.limit == 8


def test_requests_without_an_answer_for_long_make_room_for_new_ones() -> None:
    clock = Clock()
    window = Window(8, 1000, clock=clock)
    first = keys(8)
    window.sent(first)
    assert window.free() == 0
    clock.now += STALE_S + 1
    assert window.free() == 8
    window.answered(first)
    assert window.in_flight == 0


def test_a_request_sent_again_counts_once() -> None:
    window = Window(8, 1000, clock=Clock())
    sent = keys(3)
    window.sent(sent)
    window.sent(sent)
    assert window.in_flight == 3
