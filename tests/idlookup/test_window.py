"""The window of requests at the registry, against a registry made of arithmetic."""

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
    """Fill the window again and again; each lot is answered after the latency."""
    for _ in range(rounds):
        sent = keys(window.free())
        window.sent(sent)
        clock.now += latency_s
        window.answered(sent)


def most_standing(window: Window, clock: Clock, *, seconds: int, latency_s: float, capacity_per_s: int) -> int:
    """Keep the window full before a registry that answers oldest first, so many a second; the most of the second half.

    Looked at a hundred times a second, as the callers do.
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
        most = max(most, window.standing) if tick > seconds * 50 else 0
    window.answered([key for _, key in queue])
    return most


def test_it_grows_quickly_while_answers_come_quickly_and_no_further_than_allowed() -> None:
    clock = Clock()
    window = Window(8, 1000, clock=clock)
    serve(window, clock, rounds=4, latency_s=0.02)
    assert window.limit >= 100
    serve(window, clock, rounds=20, latency_s=0.02)
    assert window.limit == 1000


def test_it_does_not_grow_while_there_is_room() -> None:
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
    # A few seconds' work at most; without cuts it would be a thousand, and without new measurements soon so again.
    assert most_standing(window, clock, seconds=60, latency_s=0.02, capacity_per_s=100) <= 120
    assert most_standing(window, clock, seconds=60, latency_s=0.02, capacity_per_s=10) <= 80
    assert most_standing(window, clock, seconds=60, latency_s=0.02, capacity_per_s=2000) > 100


def test_a_registry_that_is_slow_by_nature_is_not_taken_for_a_crowded_one() -> None:
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


def test_lost_answers_halve_it_once_and_not_once_each() -> None:
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


def test_what_stays_unanswered_for_long_makes_room_for_newcomers() -> None:
    clock = Clock()
    window = Window(8, 1000, clock=clock)
    first = keys(8)
    window.sent(first)
    assert window.free() == 0
    clock.now += STALE_S + 1
    assert window.free() == 8
    window.answered(first)
    assert window.standing == 0


def test_what_is_sent_again_counts_once() -> None:
    window = Window(8, 1000, clock=Clock())
    sent = keys(3)
    window.sent(sent)
    window.sent(sent)
    assert window.standing == 3
