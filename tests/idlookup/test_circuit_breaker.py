"""The circuit breaker, on a clock that the test moves."""

from __future__ import annotations

from services.idlookup.circuit_breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def open_breaker(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(failures=3, rest_s=1.0, max_rest_s=4.0, clock=clock)
    for _ in range(3):
        assert breaker.allow()
        breaker.record_failure()
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = CircuitBreaker(failures=3, clock=Clock())
    for _ in range(4):
        breaker.record_failure()
        breaker.record_failure()
        breaker.record_success()
    assert breaker.state == "closed"
    assert breaker.allow()


def test_while_open_no_call_is_made_and_afterwards_one_probe() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    assert breaker.state == "open"
    assert not breaker.allow()
    assert breaker.rest_s() == 1.0
    clock.now += 1.0
    assert breaker.state == "half_open"
    assert breaker.allow()
    assert not breaker.allow()
    breaker.record_success()
    assert breaker.state == "closed"
    assert breaker.allow()


def test_a_probe_that_fails_makes_it_rest_longer_up_to_a_bound() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    rests = []
    for _ in range(4):
        rests.append(breaker.rest_s())
        clock.now += breaker.rest_s()
        assert breaker.allow()
        breaker.record_failure()
    assert rests == [1.0, 2.0, 4.0, 4.0]


def test_failures_of_calls_made_before_it_opened_do_not_lengthen_the_rest() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    clock.now += 0.5
    for _ in range(10):
        breaker.record_failure()
    assert breaker.rest_s() == 0.5


def test_a_released_probe_can_be_made_by_another_call() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    clock.now += 1.0
    assert breaker.allow()
    breaker.release()
    assert breaker.allow()


def test_after_a_success_the_next_rest_is_short_again() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    clock.now += 1.0
    breaker.allow()
    breaker.record_failure()
    clock.now += 2.0
    breaker.allow()
    breaker.record_success()
    for _ in range(3):
        breaker.record_failure()
    assert breaker.rest_s() == 1.0
