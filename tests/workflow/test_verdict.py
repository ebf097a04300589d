"""Which stage is named the bottleneck, in figures and in words. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.workflow.stages.verdict import StageFigures, verdict
from shared.clock import VIETNAM
from shared.contract.stages import MACHINE, STAGES, TARGETS

TUESDAY = datetime(2025, 8, 26, 9, 12, tzinfo=VIETNAM)
FIELDS = {
    "stage",
    "arrived",
    "left",
    "waiting",
    "oldest_seconds",
    "wait_p50_s",
    "wait_p95_s",
    "service_p50_s",
    "service_p95_s",
    "target_seconds",
    "score",
    "trend",
}


def stage(name: str, score: float = 0.0, **changed: Any) -> StageFigures:
    """Figures of a stage whose oldest dossier has waited for `score` times its target."""
    figures = StageFigures(
        stage=name,
        arrived=0,
        left=0,
        waiting=1 if score else 0,
        oldest_seconds=score * TARGETS[name],
        oldest_since=TUESDAY if score else None,
        wait_p50_s=None,
        wait_p95_s=None,
        service_p50_s=None,
        service_p95_s=None,
        target_seconds=TARGETS[name],
        counted_s=14_400,
    )
    return replace(figures, **changed)


def stages(*changed: StageFigures) -> list[StageFigures]:
    """All stages, normal except those that are given."""
    other = {row.stage: row for row in changed}
    return [other.get(name, stage(name)) for name in STAGES]


def test_when_nothing_is_late_there_is_no_bottleneck() -> None:
    result = verdict(stages(stage("approval", 1.0), stage("id_number", 0.99)), speed=1)
    assert result["bottleneck"] is None
    assert result["sentence"] == {"vi": "Mọi khâu bình thường.", "en": "All stages are normal."}
    assert [row["stage"] for row in result["stages"]] == list(STAGES)
    assert all(row.keys() == FIELDS for row in result["stages"])


def test_the_highest_score_over_one_is_the_bottleneck_not_the_longest_queue() -> None:
    crowd = stage("approval", 1.5, waiting=400, arrived=300, left=10)
    result = verdict(stages(crowd, stage("id_number", 3.0, waiting=2)), speed=1)
    assert result["bottleneck"]["stage"] == "id_number"
    assert result["bottleneck"]["why"] == "registry"


def test_the_sentence_says_how_many_how_long_since_when_and_how_the_others_are() -> None:
    number = stage("id_number", waiting=6, oldest_seconds=183_600, oldest_since=TUESDAY)
    result = verdict(stages(number), speed=1)["sentence"]
    assert result["vi"] == (
        "Cấp số định danh: 6 hồ sơ, lâu nhất 2 ngày 3 giờ, từ 09:12 thứ Ba; các khâu khác bình thường."
    )
    assert result["en"] == (
        "Identification number: 6 dossiers, the oldest for 2 days 3 h, since 09:12 on Tuesday;"
        " the other stages are normal."
    )
    both = verdict(stages(number, stage("approval", 1.1)), speed=1)["sentence"]
    assert "cũng chậm: Ký duyệt." in both["vi"]
    assert "slow as well: approval." in both["en"]


@pytest.mark.parametrize(
    ("name", "seconds", "speed", "words"),
    [
        ("approval", 2 * 28_800 + 3_600, 600, "2 ngày làm việc 1 giờ"),
        ("approval", 5_400, 600, "1 giờ 30 phút"),
        ("id_number", 306, 600, "2 ngày 3 giờ"),  # wall seconds, shown in office time
        ("notify", 42, 1, "42 giây"),
        ("relay", 180, 1, "3 phút"),
    ],
)
def test_ages_are_written_in_the_units_of_the_centre(name: str, seconds: float, speed: float, words: str) -> None:
    late = stage(name, waiting=1, oldest_seconds=seconds, oldest_since=TUESDAY, target_seconds=1.0)
    assert f"lâu nhất {words}, từ" in verdict(stages(late), speed=speed)["sentence"]["vi"]


@pytest.mark.parametrize(
    ("waiting", "arrived", "left", "trend"),
    [
        (0, 9, 0, "draining"),
        (3, 9, 2, "growing"),
        (3, 0, 0, "stuck"),
        (3, 5, 5, "stuck"),
        (3, 2, 9, "draining"),
    ],
)
def test_the_trend_is_reported_and_decides_nothing(waiting: int, arrived: int, left: int, trend: str) -> None:
    late = stage("appraisal", 2.0, waiting=waiting, arrived=arrived, left=left)
    result = verdict(stages(late), speed=1)
    assert result["bottleneck"]["stage"] == "appraisal"
    assert result["bottleneck"]["trend"] == trend


def test_a_draining_queue_says_when_it_will_be_empty() -> None:
    late = stage("appraisal", 2.0, waiting=30, arrived=10, left=20)
    assert verdict(stages(late), speed=1)["bottleneck"]["drain_seconds"] == 30 / 10 * 14_400
    busy = replace(late, counted_s=60.0)
    assert verdict(stages(busy), speed=1)["bottleneck"]["drain_seconds"] == 180
    assert verdict(stages(replace(late, left=10)), speed=1)["bottleneck"]["drain_seconds"] is None


def test_the_reason_names_the_awaited_party_or_the_missing_stock() -> None:
    for name, why in (("notify", "channel"), ("relay", "broker"), ("approval", "signing"), ("appraisal", "officer")):
        assert verdict(stages(stage(name, 2.0)), speed=1)["bottleneck"]["why"] == why
    short = stage("issuing", 2.0, short_of="blanks:land_certificate")
    assert verdict(stages(short), speed=1)["bottleneck"]["why"] == "blanks:land_certificate"


@given(st.dictionaries(st.sampled_from(STAGES), st.floats(0, 50), max_size=11), st.sampled_from([1.0, 600.0]))
def test_the_stage_with_the_highest_score_over_one_is_named(scores: dict[str, float], speed: float) -> None:
    result = verdict(stages(*(stage(name, score) for name, score in scores.items())), speed=speed)
    over = {name: score for name, score in scores.items() if stage(name, score).score > 1}
    if not over:
        assert result["bottleneck"] is None
        return
    named = result["bottleneck"]["stage"]
    assert stage(named, scores[named]).score == max(stage(name, score).score for name, score in over.items())
    assert result["bottleneck"]["since"] == TUESDAY
    assert (named in MACHINE) == (result["bottleneck"]["why"] in ("registry", "broker", "channel"))
