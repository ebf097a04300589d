"""The campaign's schedule depends on its seed alone and contains every fault point."""

from __future__ import annotations

from itertools import islice

from deploy.chaos.plan import KINDS, TARGETS, blows, steps
from shared.fault_points import FAULT_POINTS


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    first = list(islice(blows(7), 200))
    assert first == list(islice(blows(7), 200))
    assert first != list(islice(blows(8), 200))


def test_only_a_long_campaign_has_freezes_that_outlast_every_session_and_lease() -> None:
    short, long = (
        [blow.lasts_s for blow in islice(blows(1, long=is_long), 1000) if blow.kind == "freeze"]
        for is_long in (False, True)
    )
    assert max(short) <= 6
    assert 15 <= max(long) <= 40
    assert 0.1 < sum(lasts_s > 15 for lasts_s in long) / len(long) < 0.5
    frozen = {blow.target for blow in islice(blows(1, long=True), 1000) if blow.kind == "freeze" and blow.lasts_s > 15}
    assert frozen == set(TARGETS)


def test_wipes_come_early_and_again_and_leave_the_other_blows_unchanged() -> None:
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


def test_every_step_of_every_service_comes_in_a_long_campaign() -> None:
    reached = {(blow.target, blow.point) for blow in islice(blows(1), 300) if blow.point}
    assert reached == set(steps())


def test_a_long_campaign_has_every_kind_of_blow_against_every_target() -> None:
    schedule = list(islice(blows(1), 1000))
    for kind in ("kill", "freeze", "restart"):
        assert {blow.target for blow in schedule if blow.kind == kind} == set(TARGETS), kind
    assert {blow.target for blow in schedule if blow.kind == "weather"} == {"registry", "sms"}

    assert {blow.kind for blow in schedule} == (set(KINDS) - set(TARGETS) - {"outside"}) | {"weather"}
