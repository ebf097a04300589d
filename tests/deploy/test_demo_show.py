"""What the demo prints fits 80 columns, in hours and minutes, and nothing is cut off."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from deploy.demo import judge, show
from deploy.demo.week import Week
from shared.contract.stages import MACHINE, NAMES, STAGES
from tests.deploy.test_demo_machine import BUSY, CALM

SPEED = 3000.0
NOW = Week().ends_at
SENTENCE = {
    "vi": "Cấp số định danh: 12 hồ sơ, lâu nhất 2 ngày làm việc 3 giờ, từ 09:12 thứ Ba; cũng chậm: Thẩm định.",
    "en": "Identification number: 12 dossiers, the oldest for 2 days 3 h, since 09:12 on Tuesday; slow as well: "
    "appraisal.",
}
VERDICT: dict[str, Any] = {
    "sentence": SENTENCE,
    "stages": [
        {
            "stage": stage,
            "arrived": 17_999,
            "left": 17_998,
            "waiting": 17_997,
            "oldest_seconds": 367_500.0 / (SPEED if stage in MACHINE else 1.0),
            "score": 123.45,
        }
        for stage in STAGES
    ],
}


def lines_of(*renderables: RenderableType) -> list[str]:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    for one in renderables:
        console.print(one)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def found(**changes: Any) -> dict[str, Any]:
    isolation = {
        "wait_p95_ratio": 1.2699,
        "samples": 12_345,
        "healthy_p95_s": 36_300.0,
        "slow_p95_s": 43_500.0,
        "inconclusive": False,
        "reason": None,
    }
    load = {"late_p95_ms": 123.4, "others_share": 0.999}
    return {
        "verdict_at": NOW,
        "sentence": SENTENCE,
        "filed": 10_240,
        "meant": 10_240,
        "filed_on": {"healthy": 2_086, "slow": 2_086},
        "lost": 0,
        "repeated_effects": 0,
        "numbers_issued_twice": 0,
        "order_violations": 0,
        "isolation": isolation | changes.pop("isolation", {}),
        "machine": {"healthy": load, "slow": load},
        "speed": SPEED,
        "speed_chosen": "auto",
        "pss_mb": 498.2,
        "ready_s": 12.02,
        "seconds": 436.9,
        "checks": {"isolation": True},
        **changes,
    }


def printed(result: dict[str, Any]) -> list[str]:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    show.result(console, result)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("seconds", "en", "vi"),
    [
        (0.0, "< 1 min", "dưới 1 phút"),
        (59.9, "< 1 min", "dưới 1 phút"),
        (300.0, "5 min", "5 phút"),
        (7_500.0, "2 h 05 min", "2 giờ 05 phút"),
        (367_500.0, "102 h 05 min", "102 giờ 05 phút"),
    ],
)
def test_an_age_is_spelt_in_hours_and_minutes(seconds: float, en: str, vi: str) -> None:
    assert (show.spell(seconds), show.spell_vi(seconds)) == (en, vi)


def test_the_live_table_fits_80_columns_and_shows_every_stage_whole() -> None:
    lines = lines_of(show.table(NOW, VERDICT, 10_240, SPEED))
    assert max(cell_len(line) for line in lines) <= 80
    assert len(lines) <= 24, "a terminal of 24 lines shows it whole"
    text = "\n".join(lines)
    assert "…" not in text
    for stage in STAGES:
        row = next(line for line in lines if line.startswith(" / ".join(NAMES[stage])))
        assert [part in row for part in ("17999", "17998", "17997", "102 h 05 min", "123.5 ◄")] == [True] * 5
    for heading in ("in", "out", "wait", "oldest", "score", "lâu nhất", "×3000"):
        assert heading in text
    assert " ".join(SENTENCE["vi"].split()) in " ".join(text.split())


def test_a_stage_without_waiting_dossiers_shows_no_age() -> None:
    idle = {**VERDICT, "stages": [{**VERDICT["stages"][0], "waiting": 0, "score": 0.0}]}
    [row] = [line for line in lines_of(show.table(NOW, idle, 0, SPEED)) if line.startswith("Tiếp nhận")]
    assert row.split()[-2:] == ["–", "0.00"]


def test_the_closing_table_fits_80_columns_and_wraps_no_row() -> None:
    rows = lines_of(show.figures(found()))
    assert max(cell_len(line) for line in rows) <= 80
    assert len(rows) == 16 + 2, "16 figures, each in one line, between two borders"
    text = "\n".join(rows)
    assert "…" not in text
    for part in (
        "10 giờ 05 phút / 10 h 05 min",
        "12 giờ 05 phút / 12 h 05 min",
        "1.27 (≤ 1.25)",
        "12345",
        "123, 123 ms",
        "100, 100 % CPU",
        "×3000 (tự chọn / chosen)",
        "7 min 17 s",
    ):
        assert part in text, part
    assert "×3000 (--speed)" in "\n".join(lines_of(show.figures(found(speed_chosen="given"))))


def test_a_figure_that_is_unknown_is_a_dash() -> None:
    nothing = {"wait_p95_ratio": None, "healthy_p95_s": None, "slow_p95_s": None}
    text = "\n".join(lines_of(show.figures(found(isolation=nothing, machine={"healthy": None, "slow": None}))))
    assert "–, – ms" in text
    assert "– (≤ 1.25)" in text


def test_an_inconclusive_run_says_why_and_that_everything_else_holds() -> None:
    reason = judge.explain({"healthy": BUSY, "slow": BUSY}, SPEED)
    assert reason is not None
    busy = {"inconclusive": True, "reason": reason}
    lines = printed(found(isolation=busy, checks={"isolation": None, "four_zeros": True}))
    assert max(cell_len(line) for line in lines) <= 80
    text = " ".join(" ".join(lines).split())
    for sentence in (reason["vi"], reason["en"], SENTENCE["vi"], SENTENCE["en"]):
        assert sentence in text
    assert "1.27 (chưa kết luận / inconclusive)" in text
    assert "everything else holds" in text
    assert "not met" not in text
    assert "every invariant holds" not in text
    failed = printed(found(isolation=busy, checks={"isolation": None, "four_zeros": False}))
    assert "Không đạt / not met: four_zeros" in failed
    assert "everything else holds" not in " ".join(failed)


def test_a_calm_run_says_that_every_invariant_holds_or_what_failed() -> None:
    assert judge.explain({"healthy": CALM, "slow": CALM}, SPEED) is None
    assert "Mọi bất biến đều đúng / every invariant holds" in printed(found())
    lines = printed(found(checks={"isolation": False, "alike": False}))
    assert "Không đạt / not met: isolation, alike" in lines
    assert "with a smaller --speed." in " ".join(" ".join(lines).split())
    assert max(cell_len(line) for line in lines) <= 80
