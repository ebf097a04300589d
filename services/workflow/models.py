"""What workflow's HTTP takes and answers. Procedures and calendar rules are their own models, elsewhere."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from services.workflow.lifecycle import signing
from services.workflow.procedures import Procedure
from shared.http.times import OfficeTime
from shared.refusals import broken_rule

MAX_ITEMS = 500
Version = Annotated[int, Field(ge=1, lt=2**31)]
NationalStatus = Annotated[int, Field(ge=1, le=10)]


class Sentence(BaseModel):
    vi: str
    en: str


# Tasks.


class OutcomeView(BaseModel):
    """One way to end a task; exactly one of a task's outcomes is `forward`."""

    code: str
    label: Sentence
    note_required: bool
    fields: list[str]
    """What may be given in `fields` of the completion."""
    forward: bool


class TaskRow(BaseModel):
    """One open task. `version` changes only when its outcomes, holder or state change."""

    task_id: UUID
    dossier_id: UUID
    dossier_code: str | None
    procedure_code: str
    stage: str
    role: str
    agency: str
    version: int
    due_at: OfficeTime | None
    waiting_for: str | None
    """What is missing before it can be completed, e.g. `blanks:land_certificate`."""
    outcomes: list[OutcomeView]
    state: Literal["open", "started"]
    holder: str | None
    entered_office_at: OfficeTime


class TaskPage(BaseModel):
    items: list[TaskRow]
    next: str | None


class TaskStart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: Version


class TaskCompletion(BaseModel):
    model_config = ConfigDict(extra="forbid")
    outcome: str = Field(max_length=60)
    version: Version
    note: str | None = Field(default=None, max_length=2_000)
    fields: dict[str, Any] | None = None


class BulkItem(TaskCompletion):
    task_id: UUID


class BulkCompletion(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: list[BulkItem] = Field(min_length=1, max_length=MAX_ITEMS)


class TaskState(BaseModel):
    """A task and its dossier after a command."""

    task_id: UUID
    dossier_id: UUID
    dossier_code: str | None
    state: str
    national_status: NationalStatus
    version: int


class BulkItemState(BaseModel):
    """`status` is the HTTP status that completing this task alone would have answered."""

    task_id: UUID
    status: int
    code: str | None = None


class BulkState(BaseModel):
    items: list[BulkItemState]


# Dossiers.


class Result(BaseModel):
    """The result of a dossier, as an object."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    number: str = Field(min_length=1, max_length=signing.MAX_CHARACTERS["number"])
    book: str | None = Field(default=None, min_length=1, max_length=signing.MAX_CHARACTERS["book"])
    signed_by: str = Field(min_length=1, max_length=signing.MAX_CHARACTERS["signed_by"])
    signed_as: str = Field(pattern=signing.CAPACITY_PATTERN)
    signature: str = Field(pattern=signing.KIND_PATTERN)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class ResultView(TypedDict, total=False):
    """What is known of the result so far; a field that is not known yet is absent."""

    number: str | None
    book: str | None
    signed_by: str | None
    signed_as: str | None
    signature: str | None
    sha256: str | None
    blank: int | None
    """The serial number of the blank it is printed on."""


class ClockView(BaseModel):
    kind: Literal["statutory"]
    started_at: OfficeTime
    due_at: OfficeTime | None
    paused_since: OfficeTime | None
    running: bool


class DossierTask(BaseModel):
    """A stage the dossier is in; `role` is null where a machine is awaited."""

    stage: str
    role: str | None
    since: OfficeTime


class TimelineEntry(BaseModel):
    """One lifecycle event. `at` is wall time, `office_at` the centre's own time."""

    sequence: int
    type: str
    at: OfficeTime
    office_at: OfficeTime


class DossierView(BaseModel):
    """One dossier for officers and systems. `state` is an open string (docs/events.md lists those that exist)."""

    dossier_id: UUID
    dossier_code: str | None
    procedure_code: str
    procedure_version: int
    state: str
    national_status: NationalStatus
    due_at: OfficeTime | None
    fee: int | None
    """Đồng."""
    result: ResultView | None
    clocks: list[ClockView]
    tasks: list[DossierTask]
    timeline: list[TimelineEntry]


class TrackView(BaseModel):
    """One dossier for the citizen who holds its secret; no person in it."""

    dossier_code: str | None
    state: str
    status: NationalStatus
    due_at: OfficeTime | None
    timeline: list[TimelineEntry]


# Rules.


class ProcedurePage(BaseModel):
    items: list[Procedure]
    next: str | None


class DayView(BaseModel):
    """One day between receipt and the due time: whether it counts, as which working day, and why."""

    date: date
    counted: bool
    number: int | None
    why: str
    why_en: str


class DueView(BaseModel):
    procedure_code: str
    received_at: OfficeTime
    due_at: OfficeTime
    days: list[DayView]


class Box(BaseModel):
    """A box of numbered blanks as the department sent it."""

    model_config = ConfigDict(extra="forbid")
    kind: str = Field(pattern=r"^[a-z_]{3,40}$")
    serial_from: int = Field(ge=0, lt=2**62)
    serial_to: int = Field(ge=0, lt=2**62)
    spoiled: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _spoiled_are_of_the_box(self) -> Box:
        if self.serial_from <= self.serial_to and self.spoiled > self.serial_to - self.serial_from + 1:
            raise broken_rule("Số phôi hỏng nhiều hơn số phôi của dải.", "More are spoiled than the box holds.")
        return self


class BoxRow(BaseModel):
    """A box in stock: how many of its blanks are used, spoiled, and left."""

    kind: str
    serial_from: int
    serial_to: int
    used: int
    spoiled: int
    left: int
    received_at: OfficeTime


class BoxPage(BaseModel):
    items: list[BoxRow]
    next: str | None


# Stages.


class StageRow(BaseModel):
    """One stage. Ages and waits: working seconds where people are awaited, wall seconds where machines are."""

    stage: str
    arrived: int
    left: int
    waiting: int
    oldest_seconds: float
    wait_p50_s: float | None
    wait_p95_s: float | None
    service_p50_s: float | None
    service_p95_s: float | None
    target_seconds: float
    score: float
    """`oldest_seconds / target_seconds`; over 1 the stage is late."""
    trend: Literal["growing", "stuck", "draining"]


class Bottleneck(BaseModel):
    stage: str
    why: str
    since: OfficeTime | None
    trend: Literal["growing", "stuck", "draining"]
    drain_seconds: float | None


class RecordedOnlyRow(BaseModel):
    """Dossiers of a procedure that are recorded and not received, and why it receives nothing now."""

    procedure_code: str
    procedure_group: str
    waiting: int
    oldest_since: OfficeTime
    reason: str | None


class StagesView(BaseModel):
    stages: list[StageRow]
    bottleneck: Bottleneck | None
    sentence: Sentence
    recorded_only: list[RecordedOnlyRow]


# Events.


class CloudEvent(BaseModel):
    """A public event in CloudEvents' JSON format: the same id, source, type, time and sequence as on Kafka."""

    specversion: Literal["1.0"]
    id: UUID
    source: str
    type: str
    subject: UUID
    time: str
    sequence: str
    datacontenttype: Literal["application/json"]
    traceparent: str
    data: dict[str, Any]
