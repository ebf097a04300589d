"""The demo's week and its judgement: arrivals, signing rounds, what counts as a wait, which looks are compared."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.week import MIN_WAITS, missed_in, pool
from deploy.demo import judge, officers
from deploy.demo.conduct import Look, Watched
from deploy.demo.waits import SLOW_DAY, compare, longest_wait, read, working_seconds
from deploy.demo.week import ALIKE, DAYS, TUESDAY, WEDNESDAY, Arrival, Week, arrivals
from deploy.local import cli
from shared.clock import VIETNAM, OfficeClock
from shared.contract.envelope import new_id
from tests.fixtures.databases import MakePool

WEEK = Week()
EQUAL = {"healthy": 278, "slow": 278}
CALM = {"healthy": None, "slow": None}
"""Loads of a machine that was not measured: everything is judged."""
CLOCK = OfficeClock(WEEK.begins_at, 1_000_000.0, 3000.0)


def on(day: int, arrival: Arrival) -> bool:
    begin, end = WEEK.day(day)
    return begin <= arrival.at < end


def test_the_compared_days_and_the_day_before_have_the_same_arrivals_with_other_people() -> None:
    plan = arrivals(3, 2)
    days = [
        Counter((a.at.time(), a.procedure_code, a.channel, a.commune) for a in plan if on(day, a))
        for day in range(DAYS)
    ]
    assert {TUESDAY - 1, TUESDAY, WEDNESDAY} == set(ALIKE)
    assert all(days[day] == days[TUESDAY] for day in ALIKE)
    assert days[DAYS - 1] != days[TUESDAY]
    assert len({arrival.seed for arrival in plan}) == len(plan) == sum(sum(day.values()) for day in days)


@pytest.mark.parametrize(
    ("said", "monday"),
    [
        ("2025-08-25T07:15+07:00", "2025-08-25"),
        ("2025-08-25T07:16+07:00", "2025-09-08"),  # the week after it has the National Day
        ("2026-02-13T08:00+07:00", "2026-02-23"),  # the week after it is Tết
    ],
)
def test_another_week_is_the_first_full_one_from_then_on(said: str, monday: str) -> None:
    assert Week.after(datetime.fromisoformat(said)).monday.isoformat() == monday


@pytest.mark.parametrize("name", ["up", "demo"])
def test_up_and_demo_take_the_same_options(name: str) -> None:
    shown = CliRunner().invoke(cli.build(), [name, "--help"], env={"COLUMNS": "200"}).output
    for option in ("--port-base", "--data", "--broker", "--postgres", "--now", "--speed"):
        assert option in shown, option


def test_the_signatory_signs_in_two_rounds_a_day() -> None:
    moment, rounds = WEEK.begins_at, []
    while (moment := officers._next_round(moment)) < WEEK.ends_at:
        rounds.append(f"{moment:%H:%M}")
    assert rounds == ["10:30", "16:00"] * DAYS


def look(said: str | None, scraped: str | None, score: float = 2.0) -> Look:
    bottleneck = {"stage": said} if said else None
    return Look(WEEK.begins_at, {"stages": [{"score": score}], "bottleneck": bottleneck}, scraped)


def watch(*looks: Look, at_end: bool = True) -> Watched:
    watched = Watched(agreed_at_end=at_end)
    for one in looks:
        watched.keep(one)
    return watched


def test_a_look_is_judged_when_the_looks_before_and_after_named_the_same_stage() -> None:
    calm, moving = [look(None, None)] * 3, [look("id_number", None, 9.0), look(None, "id_number"), look("relay", None)]
    watched = watch(*calm, *moving)
    assert (watched.agreed, watched.differed, watched.worst) == (1, 0, None)
    worst = look("id_number", "id_number", 7.0)
    watched = watch(*calm, look("id_number", None, 8.0), worst, look("id_number", "id_number", 9.0), *calm)
    assert watched.worst is worst


def test_two_verdicts_that_differ_at_settled_moments_or_in_the_end_are_a_failure() -> None:
    same, other = [look("id_number", "id_number")] * 100, [look("id_number", "approval")] * 20
    assert watch(*same).agree
    assert watch(*same, *other[:8]).agree
    assert not watch(*same, *other).agree
    assert not watch(*same, at_end=False).agree
    judged = judge.judge(watch(*same, *other), 1.0, EQUAL, CALM, 3000.0)
    assert [name for name, passed in judged.items() if not passed] == ["metrics_agree"]


def test_an_unknown_ratio_does_not_pass() -> None:
    assert judge.judge(watch(), None, EQUAL, CALM, 3000.0)["isolation"] is False
    assert judge.judge(watch(), 1.26, EQUAL, CALM, 3000.0)["isolation"] is False
    assert judge.judge(watch(), 1.24, EQUAL, CALM, 3000.0)["isolation"] is True


def test_days_with_different_numbers_of_dossiers_are_not_compared() -> None:
    """On a slow run the last dossiers of a day are filed on the next one, and the ratio of waits means nothing."""
    assert judge.judge(watch(), 1.0, {"healthy": 510, "slow": 216}, CALM, 3000.0)["alike"] is False
    assert judge.judge(watch(), 1.0, EQUAL, CALM, 3000.0)["alike"] is True


def test_only_office_hours_count_as_waiting() -> None:
    tuesday, friday = WEEK.day(TUESDAY)[0], WEEK.ends_at
    assert working_seconds(tuesday + timedelta(hours=11), tuesday + timedelta(hours=14)) == 3600
    assert working_seconds(tuesday, tuesday + timedelta(days=1)) == 27_000
    assert working_seconds(friday, friday + timedelta(days=2)) == 0
    assert longest_wait(WEEK) == 2 * 27_000


def test_a_healthy_day_whose_p95_was_cut_off_gives_no_ratio() -> None:
    ended, open_still = [60.0] * 99, [1000.0] * 10
    assert compare(ended, ended, ((), ()), 1000.0).wait_p95_ratio == 1.0
    assert compare([*ended, *open_still], ended, ((), ()), 1000.0).wait_p95_ratio is None
    assert compare(ended, [*ended, *open_still], ((), ()), 1000.0).wait_p95_ratio == pytest.approx(1000 / 60, abs=0.01)
    assert compare(ended, ended, ((), ())).samples == 99


async def test_open_waits_and_notices_are_in_the_pool_and_the_registrys_stages_are_not(make_pool: MakePool) -> None:
    workflow_dsn, workflow = await make_pool.with_dsn("shared", "services.workflow")
    notify_dsn, notify = await make_pool.with_dsn("shared", "services.notify")
    wednesday = WEEK.day(SLOW_DAY)[0]
    nine = wednesday + timedelta(hours=9)
    mine, other = new_id(), new_id()
    for dossier, at in ((mine, nine), (other, nine - timedelta(days=1))):
        await workflow.execute(DOSSIER, dossier, at)
    for dossier, stage, state, wait, started in (
        (mine, "reception", "closed", 120.0, nine + timedelta(minutes=2)),
        (mine, "return", "started", None, nine + timedelta(minutes=30)),
        (mine, "appraisal", "open", None, None),
        (mine, "id_number", "open", None, None),
        (mine, "identity_check", "closed", 8.0, None),
        (other, "reception", "closed", 777.0, None),
    ):
        await workflow.execute(TASK, new_id(), dossier, stage, state, nine, started, wait)
    wanted = datetime.fromtimestamp(CLOCK.wall(nine), VIETNAM)
    again = new_id()
    for notice, channel, dossier, taken_s in (
        (new_id(), "sms", mine, 0.5),
        (again, "sms", mine, 0.1),  # tried by SMS, then put on the call list: that is one wait
        (again, "call_list", mine, 4.0),
        (new_id(), "sms", mine, None),
        (new_id(), "sms", other, 3.0),
    ):
        taken = None if taken_s is None else wanted + timedelta(seconds=taken_s)
        await notify.execute(NOTICE, notice, channel, dossier, wanted, taken)
    found, dossiers = await read({"workflow": workflow_dsn, "notify": notify_dsn}, CLOCK, WEEK, SLOW_DAY)
    # The open appraisal and the notice that no channel took are longer than the cut-off.
    assert dossiers == 1
    assert sorted(found) == pytest.approx([120.0, 300.0, 1500.0, 1800.0, 54_000.0, 54_000.0])


DOSSIER = """
  insert into dossiers (dossier_id, procedure_code, procedure_version, procedure_group, receiving_agency, state,
                        national_status, lifecycle_sequence, recorded_at, trace_id, body)
  values ($1, 'X', 1, 'x', 'H44.XXX', 'in_progress', 4, 1, $2, $1, '{}')
"""
TASK = """
  insert into tasks (task_id, dossier_id, procedure_code, procedure_group, agency, stage, version, state, outcomes,
                     entered_at, entered_office_at, started_office_at, wait_s)
  values ($1, $2, 'X', 'x', 'H44.XXX', $3, 1, $4, '[]', now(), $5, $6, $7)
"""
NOTICE = """
  insert into notices (notice_id, channel, dossier_id, kind, cause, national_status, receiving_agency, sealed_contact,
                       trace_id, wanted_at, state, try_at, taken_at)
  values ($1, $2, $3, 'received', 'x', 2, 'H44.XXX', 'sealed', $1, $4, 'due', now(), $5)
"""


def figures(**changes: Any) -> dict[str, Any]:
    zeros = dict.fromkeys(("lost", "repeated_effects", "numbers_issued_twice", "order_violations"), 0)
    isolation = {"samples": MIN_WAITS, "lower_95": 1.05}
    return {**zeros, "isolation": {**isolation, **changes.pop("isolation", {})}, **changes}


def test_a_benchmark_of_the_week_needs_two_thousand_waits_per_day() -> None:
    assert missed_in(figures()) == []
    assert MIN_WAITS == 2_000
    [few] = missed_in(figures(isolation={"samples": 1_999}))
    assert "1999" in few
    assert len(missed_in(figures(lost=1, isolation={"lower_95": 1.11}))) == 2
    assert len(missed_in(figures(isolation={"lower_95": None}))) == 1


def test_a_benchmark_of_the_week_pools_no_waits_of_an_inconclusive_run() -> None:
    judged = {"isolation": {"inconclusive": False}, "waits": {"healthy": [1.0], "slow": [2.0]}}
    busy = {"isolation": {"inconclusive": True}, "waits": {"healthy": [8.0], "slow": [9.0]}}
    assert pool([judged, busy, judged], "slow") == [2.0, 2.0]
    assert pool([busy], "healthy") == []
