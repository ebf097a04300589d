"""The campaign's schedule comes from its seed alone and leaves no fault point out."""

from __future__ import annotations

from itertools import islice

from deploy.chaos.plan import EVERYBODY, KINDS, blows, steps
from shared.faults import FAULT_POINTS


def test_the_same_seed_is_the_same_schedule_and_another_is_another() -> None:
    first = list(islice(blows(7), 200))
    assert first == list(islice(blows(7), 200))
    assert first != list(islice(blows(8), 200))


def test_every_fault_point_comes_in_a_short_campaign() -> None:
    for seed in range(50):
        assert {blow.point for blow in islice(blows(seed), 45) if blow.point} == set(FAULT_POINTS)


def test_every_step_of_every_service_comes_in_a_long_one() -> None:
    struck = {(blow.target, blow.point) for blow in islice(blows(1), 300) if blow.point}
    assert struck == set(steps())


def test_a_long_one_leaves_nobody_and_nothing_out() -> None:
    struck = list(islice(blows(1), 1000))
    for kind in ("kill", "freeze", "restart"):
        assert {blow.target for blow in struck if blow.kind == kind} == set(EVERYBODY), kind
    assert {blow.target for blow in struck if blow.kind == "weather"} == {"registry", "sms"}
    assert {blow.kind for blow in struck} == (set(KINDS) - set(EVERYBODY) - {"outside"}) | {"weather"}
