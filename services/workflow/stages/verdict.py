"""Where work is stuck, since when and why: the bottleneck verdict, from figures alone. Pure.

The bottleneck is the stage with the highest score, if that is over 1. A score is the age of the oldest item divided by
the stage's target. Whether the queue grows, stands or drains is reported, but does not decide: two dossiers that are
stuck for two days are a bottleneck as much as a flood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from shared.clock import VIETNAM
from shared.contract.stages import MACHINE, NAMES

WEEKDAYS = ("thứ Hai", "thứ Ba", "thứ Tư", "thứ Năm", "thứ Sáu", "thứ Bảy", "Chủ nhật")
WEEKDAYS_EN = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WORKING_DAY_S = 8 * 3600

WHY = {
    "identity_check": "registry",
    "id_number": "registry",
    "relay": "broker",
    "notify": "channel",
    "financial_obligation": "citizen",
    "consultation": "other_agency",
    "approval": "signing",
}
"""Stage -> who is awaited; every other stage waits for an officer."""


@dataclass(frozen=True, slots=True)
class StageFigures:
    """One stage now. Ages and waits: working seconds for human stages, wall seconds for machine stages.

    `arrived` and `left` count the last four hours of office time, of a busy stage back to its 2,000th departure;
    percentiles cover its last 1,000 departures.
    """

    stage: str
    arrived: int
    left: int
    waiting: int
    oldest_seconds: float
    oldest_since: datetime | None
    """Office time at which the oldest item entered the stage."""
    wait_p50_s: float | None
    wait_p95_s: float | None
    service_p50_s: float | None
    service_p95_s: float | None
    target_seconds: float
    counted_s: float
    """Length in wall seconds of the period of `arrived` and `left`."""
    short_of: str | None = None
    """What the oldest task needs and the stock does not have, e.g. `blanks:land_certificate`."""

    @property
    def score(self) -> float:
        return self.oldest_seconds / self.target_seconds

    @property
    def trend(self) -> str:
        if not self.waiting:
            return "draining"
        if self.arrived > self.left:
            return "growing"
        return "draining" if self.left > self.arrived else "stuck"


def verdict(stages: Sequence[StageFigures], *, speed: float) -> dict[str, Any]:
    """The body of `GET /v1/stages`."""
    rows = [{**_shown(stage), "score": round(stage.score, 3), "trend": stage.trend} for stage in stages]
    over = sorted((stage for stage in stages if stage.score > 1), key=lambda stage: stage.score, reverse=True)
    if not over:
        calm = {"vi": "Mọi khâu bình thường.", "en": "All stages are normal."}
        return {"stages": rows, "bottleneck": None, "sentence": calm}
    worst = over[0]
    drain = None
    if worst.left > worst.arrived:
        drain = round(worst.waiting / (worst.left - worst.arrived) * worst.counted_s, 1)
    bottleneck = {
        "stage": worst.stage,
        "why": _why(worst),
        "since": worst.oldest_since,
        "trend": worst.trend,
        "drain_seconds": drain,
    }
    return {"stages": rows, "bottleneck": bottleneck, "sentence": _sentence(worst, over[1:], speed)}


def _shown(stage: StageFigures) -> dict[str, Any]:
    figures = asdict(stage)
    del figures["short_of"], figures["oldest_since"], figures["counted_s"]
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}


def _why(stage: StageFigures) -> str:
    if stage.short_of:
        return stage.short_of
    return WHY.get(stage.stage, "officer")


def _sentence(worst: StageFigures, others: Sequence[StageFigures], speed: float) -> dict[str, str]:
    name_vi, name_en = NAMES[worst.stage]
    age_vi, age_en = _age(worst, speed)
    vi = f"{name_vi}: {worst.waiting} hồ sơ, lâu nhất {age_vi}"
    dossiers = "1 dossier" if worst.waiting == 1 else f"{worst.waiting} dossiers"
    en = f"{name_en[0].upper()}{name_en[1:]}: {dossiers}, the oldest for {age_en}"
    if worst.oldest_since is not None:
        since = worst.oldest_since.astimezone(VIETNAM)
        vi += f", từ {since:%H:%M} {WEEKDAYS[since.weekday()]}"
        en += f", since {since:%H:%M} on {WEEKDAYS_EN[since.weekday()]}"
    if others:
        vi += "; cũng chậm: " + ", ".join(NAMES[stage.stage][0] for stage in others) + "."
        en += "; slow as well: " + ", ".join(NAMES[stage.stage][1] for stage in others) + "."
    else:
        vi += "; các khâu khác bình thường."
        en += "; the other stages are normal."
    return {"vi": vi, "en": en}


def _age(stage: StageFigures, speed: float) -> tuple[str, str]:
    """An age in office time: calendar days where a machine is awaited, working days where a person is."""
    if stage.stage in MACHINE:
        seconds, day, unit, unit_en = stage.oldest_seconds * speed, 86_400, "ngày", "days"
    else:
        seconds, day, unit, unit_en = stage.oldest_seconds, WORKING_DAY_S, "ngày làm việc", "working days"
    days, rest = divmod(int(seconds), day)
    hours, minutes = rest // 3600, rest % 3600 // 60
    if days:
        return f"{days} {unit} {hours} giờ", f"{days} {unit_en} {hours} h"
    if hours:
        return f"{hours} giờ {minutes} phút", f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} phút", f"{minutes} min"
    return f"{int(seconds)} giây", f"{int(seconds)} s"
