"""The demo tells a busy machine from a slow product: what it measures, what it decides, which speed it chooses."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console

from deploy.demo import command, conduct, judge
from deploy.demo.conduct import HEALTHY, Watched, slow_registry, targets
from deploy.demo.machine import TIMER_S, Load, MachineProbe, Ticks, cores, measure, read_ticks
from deploy.demo.speed import SPEEDS, choose_speed, measure_start, parse_speed
from deploy.demo.week import Week
from deploy.verify.report import Report
from tests.deploy.test_demo import EQUAL, watch

SPEED = 3000.0
CALM = Load(
    late_p95_ms=4.0, late_p99_ms=8.0, late_max_ms=20.0, lost_share=0.05, idle_share=0.6, others_share=0.05, stall_ms=0.0
)
BUSY = replace(
    CALM, late_p95_ms=45.0, late_max_ms=180.0, lost_share=0.25, idle_share=0.05, others_share=0.55, stall_ms=180.0
)
SATURATED = replace(CALM, late_p95_ms=15.0, idle_share=0.01, others_share=0.7)
HALTED = replace(CALM, late_max_ms=900.0, stall_ms=900.0)
SATURATED_BY_THE_STACK = replace(BUSY, late_max_ms=900.0, others_share=0.05, stall_ms=0.0)
BAD, GOOD = 1.95, 1.02


def checks(
    ratio: float | None, healthy: Load | None, slow: Load | None, filed: int = EQUAL["slow"]
) -> dict[str, bool | None]:
    loads = {"healthy": healthy, "slow": slow}
    return judge.judge(watch(), ratio, {**EQUAL, "slow": filed}, loads, SPEED)


def test_a_slow_product_on_a_calm_machine_fails() -> None:
    assert checks(BAD, CALM, CALM)["isolation"] is False
    assert checks(GOOD, CALM, CALM)["isolation"] is True
    assert judge.explain({"healthy": CALM, "slow": CALM}, SPEED) is None


def test_a_product_that_uses_up_the_processors_itself_fails() -> None:
    assert checks(BAD, CALM, SATURATED_BY_THE_STACK)["isolation"] is False
    assert checks(GOOD, CALM, CALM, filed=12)["alike"] is False


def test_a_busy_neighbour_that_does_not_make_timers_late_is_no_excuse() -> None:
    assert checks(BAD, CALM, replace(CALM, idle_share=0.3, others_share=0.5))["isolation"] is False


def test_a_machine_that_does_not_tell_who_used_its_processors_is_no_excuse() -> None:
    assert checks(BAD, CALM, replace(BUSY, idle_share=None, others_share=None, stall_ms=None))["isolation"] is False
    assert checks(BAD, None, None)["isolation"] is False


@pytest.mark.parametrize("ratio", [GOOD, BAD, None])
@pytest.mark.parametrize(
    ("healthy", "slow"), [(BUSY, CALM), (CALM, BUSY), (BUSY, BUSY), (CALM, HALTED), (CALM, SATURATED)]
)
def test_on_a_busy_machine_isolation_is_inconclusive_whatever_the_ratio(
    healthy: Load, slow: Load, ratio: float | None
) -> None:
    found = checks(ratio, healthy, slow, filed=12)
    assert (found["isolation"], found["alike"]) == (None, None)
    assert all(found[name] is not None for name in ("registry_named", "metrics_agree", "memory"))


def test_an_inconclusive_check_passes_and_hides_no_other() -> None:
    assert judge.has_passed({"isolation": None, "four_zeros": True})
    assert not judge.has_passed({"isolation": None, "four_zeros": False})
    assert not judge.has_passed({"isolation": False, "four_zeros": True})


def test_the_same_lateness_is_tolerable_at_a_lower_speed() -> None:
    late = replace(BUSY, idle_share=0.5, others_share=0.3)
    assert judge.is_too_busy(late, SPEED)
    assert not judge.is_too_busy(late, 1000.0)
    assert judge.is_too_busy(HALTED, SPEED)
    assert not judge.is_too_busy(HALTED, 1000.0)
    assert judge.is_too_busy(SATURATED, 1000.0)


def test_the_reason_names_the_day_and_the_measured_lateness_in_both_languages() -> None:
    reason = judge.explain({"healthy": CALM, "slow": BUSY}, SPEED)
    assert reason is not None
    assert "thứ Tư" in reason["vi"]
    assert "45 ms" in reason["vi"]
    assert "Wednesday" in reason["en"]
    assert "45 ms late (p95), at most 180 ms" in reason["en"]
    assert "55%" in reason["en"]
    assert "Tuesday" not in reason["en"]


@pytest.mark.parametrize(("slow", "passed"), [(CALM, False), (BUSY, True)])
async def test_the_run_reports_whether_isolation_is_inconclusive_and_passes_accordingly(
    monkeypatch: pytest.MonkeyPatch, slow: Load, passed: bool
) -> None:
    """The run itself, without a stack: everything is right but the ratio, which is bad."""
    loads = iter([CALM, slow])

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    async def play(*_: Any, **__: Any) -> tuple[int, int, dict[str, int]]:
        return 424, 424, {}

    async def prove(*_: Any, **__: Any) -> Report:
        return Report()

    async def outcome(*_: Any) -> dict[str, Any]:
        return {"proof": {"quiet": True}, "isolation": {"wait_p95_ratio": BAD}, "filed_on": EQUAL}

    worst = SimpleNamespace(named="id_number", scraped="id_number")
    watched = Watched(worst=worst, agreed_at_end=True)  # type: ignore[arg-type]
    monkeypatch.setattr(watched.probe, "load", lambda *_: next(loads))
    monkeypatch.setattr(conduct, "Watched", lambda **_: watched)
    monkeypatch.setattr(conduct, "play", play)
    monkeypatch.setattr(conduct, "look_at_the_end", nothing)
    monkeypatch.setattr(command, "run", prove)
    monkeypatch.setattr(command, "exit_code", lambda _: 0)
    monkeypatch.setattr(command, "_outcome", outcome)
    office = {"office0": Week().begins_at.isoformat(), "wall0": 0.0, "speed": SPEED}
    stack: Any = SimpleNamespace(endpoints={"office": office, "pids": {}})
    result = await command._play(stack, Week(), 1, 1, Console(quiet=True))
    assert result["isolation"]["inconclusive"] is passed
    assert (result["isolation"]["reason"] is not None) is passed
    assert result["passed"] is passed
    assert result["machine"]["slow"]["late_p95_ms"] == slow.late_p95_ms


async def test_a_loop_that_is_held_up_shows_in_the_lateness_of_the_timers() -> None:
    probe = MachineProbe()
    task = asyncio.create_task(probe.run())
    await asyncio.sleep(3 * TIMER_S)
    begin = time.time()
    time.sleep(0.3)
    await asyncio.sleep(5 * TIMER_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    load = probe.load(begin)
    assert load is not None
    assert load.late_max_ms >= 250
    assert load.lost_share > 0.3
    assert probe.load(begin + 3600) is None


def test_shares_of_the_processors_are_taken_between_the_first_and_the_last_reading() -> None:
    whole = 10.0 * cores()
    ticks = [Ticks(100.0, 50.0, 7.0), Ticks(105.0, 50.0, 7.0), Ticks(110.0, 50.0 + 0.3 * whole, 7.0 + 0.2 * whole)]
    load = measure([(104.0, 0.001)] * 95 + [(105.0, 0.1)] * 5, ticks)
    assert load is not None
    assert (load.idle_share, load.others_share) == (0.3, 0.5)
    assert (load.late_p95_ms, load.late_max_ms) == (100.0, 100.0)
    unknown = measure([(104.0, 0.001)], ticks[:1])
    assert unknown is not None
    assert (unknown.idle_share, unknown.others_share, unknown.stall_ms) == (None, None, None)


def test_a_stall_counts_only_where_others_used_the_processors_at_that_time() -> None:
    second = float(cores())
    idle, own = Ticks(101.0, 0.9 * second, 0.1 * second), Ticks(102.0, 0.9 * second, 1.1 * second)
    others = Ticks(103.0, 1.4 * second, 1.1 * second)
    ticks = [Ticks(100.0, 0.0, 0.0), idle, own, others]
    load = measure([(100.5, 0.6), (101.5, 0.9), (102.5, 0.5), (102.6, 0.2)], ticks)
    assert load is not None
    assert (load.late_max_ms, load.stall_ms) == (900.0, 500.0)


def test_what_the_stack_started_counts_as_its_own_and_other_programs_do_not() -> None:
    spin = "import time\nwhile time.process_time() < 0.4: pass\nprint(1, flush=True)\nimport sys; sys.stdin.read()"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", nested], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        own, others = read_ticks([child.pid]), read_ticks([])
        child.communicate()
    assert own is not None
    assert own.own >= 0.4
    assert others is not None
    assert others.own == 0


async def test_the_machine_is_measured_before_the_stack_starts() -> None:
    load = await measure_start()
    assert load is not None
    assert load.others_share is None or 0 <= load.others_share <= 1


@pytest.mark.parametrize(
    ("load", "processors", "communes", "speed"),
    [
        (CALM, 2, 1, 3000.0),
        (CALM, 8, 1, 3000.0),
        (None, 2, 1, 3000.0),
        (replace(CALM, others_share=0.5), 2, 1, 1500.0),
        (replace(CALM, others_share=0.9), 2, 1, 1000.0),
        (replace(CALM, late_p95_ms=35.0), 2, 1, 1500.0),
        (replace(CALM, others_share=0.5), 8, 1, 3000.0),
        (CALM, 2, 10, 1000.0),
        (CALM, 1, 1, 1000.0),
    ],
)
def test_auto_chooses_the_highest_speed_that_the_machine_can_carry(
    load: Load | None, processors: int, communes: int, speed: float
) -> None:
    assert choose_speed(load, processors, communes) == speed


def test_the_speed_is_a_number_or_auto() -> None:
    assert parse_speed("auto") is None
    assert parse_speed("600") == 600.0
    for wrong in ("59", "fast", "nan", "100001", ""):
        with pytest.raises(typer.BadParameter):
            parse_speed(wrong)


@pytest.mark.parametrize("speed", [*SPEEDS, 600.0])
def test_the_slow_day_is_equally_slow_in_office_time_at_every_speed(speed: float) -> None:
    slow, reference = slow_registry(speed), slow_registry(SPEED)
    for name in ("latency_p50_s", "latency_p95_s"):
        assert slow[name] * speed == pytest.approx(reference[name] * SPEED)
    assert slow["capacity_per_s"] / speed == pytest.approx(reference["capacity_per_s"] / SPEED)
    assert slow.keys() == HEALTHY.keys()
    assert {stage: seconds / speed for stage, seconds in targets(speed).items()} == pytest.approx(
        {"relay": 1.2, "notify": 2.4}
    )
