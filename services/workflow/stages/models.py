"""What `GET /v1/stages` answers."""

from __future__ import annotations

from typing import Literal

from services.workflow.models import Sentence
from shared.http.models import HttpModel
from shared.http.times import VietnamTime

Trend = Literal["growing", "stuck", "draining"]


class StageRow(HttpModel):
    """One stage. Its times are working seconds where people are awaited, and wall seconds where machines are.

    `arrived` and `left` count the last four hours of office time; for a busy stage, back to its 2,000th departure.
    Percentiles cover the stage's last 1,000 departures and are null when there are none.
    """

    stage: str
    arrived: int
    """How many dossiers came."""
    left: int
    """How many dossiers left."""
    waiting: int
    """How many dossiers are in the stage."""
    oldest_seconds: float
    """How long the oldest dossier has been in the stage; 0 when it is empty."""
    wait_p50_s: float | None
    """Median of the time before somebody took the dossier up."""
    wait_p95_s: float | None
    """95th percentile of the time before somebody took the dossier up."""
    service_p50_s: float | None
    """Median of the time that somebody worked on the dossier."""
    service_p95_s: float | None
    """95th percentile of the time that somebody worked on the dossier."""
    target_seconds: float
    """How long a dossier should be in the stage at most."""
    score: float
    """`oldest_seconds / target_seconds`; over 1 the stage is late."""
    trend: Trend
    """Whether more dossiers came than left."""


class Bottleneck(HttpModel):
    """The stage with the highest score, when that is over 1."""

    stage: str
    why: str
    """Who is awaited (`registry`, `broker`, `channel`, `citizen`, `other_agency`, `signing`, `officer`), or what is
    missing, e.g. `blanks:land_certificate`."""
    since: VietnamTime | None
    """When its oldest dossier came, in office time."""
    trend: Trend
    drain_seconds: float | None
    """Wall seconds until the stage is empty at the present speed; null unless more dossiers leave than come."""


class RecordedOnlyRow(HttpModel):
    """Dossiers of one procedure that are recorded and not received, because it receives none now."""

    procedure_code: str
    procedure_group: str
    waiting: int
    """How many dossiers."""
    oldest_since: VietnamTime
    """When the oldest was recorded, in office time."""
    reason: str | None
    """Why the procedure receives none."""


class StagesView(HttpModel):
    """The answer to: where is work stuck, since when and why?"""

    stages: list[StageRow]
    bottleneck: Bottleneck | None
    """Null when no stage is late."""
    sentence: Sentence
    """The same in words."""
    recorded_only: list[RecordedOnlyRow]
