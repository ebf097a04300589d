"""The campaign's schedule comes from its seed alone and leaves no fault point out."""

from __future__ import annotations

from itertools import islice

from deploy.chaos.plan import EVERYBODY, KINDS, blows, steps
from shared.fault_points import FAULT_POINTS


def test_the_same_seed_is_the_same_schedule_and_another_is_another() -> None:
    first = list(islice(blows(7), 200))
    assert first == list(islice(blows(7), 200))
    assert first != list(islice(blows(8), 200))


def test_only_a_long_one_has_freezes_that_outlast_every_session_and_lease() -> None:
    short, long = (
        [blow.lasts_s for blow in islice(blows(1, long=asked), 1000) if blow.kind == "freeze"]
        for asked in (False, True)
    )
    assert max(short) <= 6
    assert 15 <= max(long) <= 40
    assert 0.1 < sum(lasts_s > 15 for lasts_s in long) / len(long) < 0.5
    struck = {blow.target for blow in islice(blows(1, long=True), 1000) if blow.kind == "freeze" and blow.lasts_s > 15}
    assert struck == set(EVERYBODY)


def test_a_broker_that_may_be_wiped_is_wiped_early_and_again_and_the_rest_of_the_schedule_stays() -> None:
    for seed in range(20):
        plain, wiping = list(islice(blows(seed), 300)), list(islice(blows(seed, wipes=True), 300))
        wiped = [number for number, blow in enumerate(wiping) if blow.kind == "wipe"]
        assert wiped[0] <= 10
        assert 2 <= len(wiped) < 20
        assert [blow for blow in wiping if blow.kind != "wipe"] == plain[: 300 - len(wiped)]
    assert "wipe" not in {blow.kind for blow in plain}


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
