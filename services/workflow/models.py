"""What workflow's HTTP takes and answers.

Procedures and the calendar have the rules' own models: `procedures.Procedure` and `clock.calendar.CalendarRules`.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from services.workflow.lifecycle import signing
from services.workflow.procedures import Procedure
from shared.http.models import HttpModel
from shared.http.times import VietnamTime
from shared.refusals import broken_rule

MAX_ITEMS = 500
Version = Annotated[int, Field(ge=1, lt=2**31, description="The task's version that the officer saw.")]
NationalStatus = Annotated[int, Field(ge=1, le=10)]
DossierCode = Annotated[str | None, Field(description="Null before reception.")]
DossierState = Annotated[str, Field(description="The dossier's state, an open string (docs/events.md lists them).")]
DossierDue = Annotated[
    VietnamTime | None, Field(description="When the result is due, in office time; null before reception.")
]
Next = Annotated[str | None, Field(description="The cursor for `after`; null on the last page.")]


class Body(HttpModel):
    """The base of request bodies: a field that the model does not have is refused."""

    model_config = ConfigDict(extra="forbid")


class Sentence(HttpModel):
    """One sentence in Vietnamese and in English."""

    vi: str
    en: str


# Tasks.


class OutcomeView(HttpModel):
    """One way to end a task; exactly one of a task's outcomes is `forward`."""

    code: str
    """The completion's `outcome`."""
    label: Sentence
    note_required: bool
    """Whether the completion needs a `note`."""
    fields: list[str]
    """What may be given in `fields` of the completion; none of them is required."""
    forward: bool
    """Whether this is the usual way on, which needs no note and no field."""


class TaskRow(HttpModel):
    """One open task: one stay of a dossier in a stage."""

    task_id: UUID
    dossier_id: UUID
    dossier_code: DossierCode
    procedure_code: str
    stage: str
    """One of the stages that `GET /v1/stages` lists."""
    role: str
    """The role that can complete it."""
    agency: str
    """The agency that received the dossier."""
    version: int
    """Goes up when the task's outcomes, holder or state change. A command must give it."""
    due_at: VietnamTime | None
    """When the task is to be done, in office time. Never later than the dossier's own due time."""
    waiting_for: str | None
    """What is missing before it can be completed, e.g. `blanks:land_certificate`; null when nothing is."""
    outcomes: list[OutcomeView]
    state: Literal["open", "started"]
    """`started` when somebody has taken it up."""
    holder: str | None
    """Who has taken it up: the name in `X-Officer`, or the role."""
    entered_office_at: VietnamTime
    """When the dossier came to the stage, in office time."""


class TaskPage(HttpModel):
    items: list[TaskRow]
    next: Next


class TaskStart(Body):
    version: Version


class TaskCompletion(Body):
    outcome: str = Field(max_length=60)
    """The code of one of the task's outcomes."""
    version: Version
    note: str | None = Field(default=None, max_length=2_000, description="The reason, where the outcome requires one.")
    fields: dict[str, Any] | None = Field(default=None, description="Values for the outcome's `fields`.")


class BulkItem(TaskCompletion):
    """One task to end, as in `POST /v1/tasks/{task_id}/complete`."""

    task_id: UUID


class BulkCompletion(Body):
    items: list[BulkItem] = Field(min_length=1, max_length=MAX_ITEMS)


class TaskState(HttpModel):
    """A task and its dossier after a command."""

    task_id: UUID
    dossier_id: UUID
    dossier_code: DossierCode
    state: DossierState
    national_status: NationalStatus
    version: int
    """The task's version."""


class BulkItemState(HttpModel):
    """What became of one item."""

    task_id: UUID
    status: int
    """The HTTP status that completing this task alone would have had."""
    code: str | None = None
    """The problem code that completing this task alone would have had; absent with status 200."""


class BulkState(HttpModel):
    items: list[BulkItemState]
    """One for each item of the request, in its order."""


# Dossiers.


class Result(Body):
    """The result of a dossier. Spaces around a text are removed."""

    model_config = ConfigDict(str_strip_whitespace=True)
    number: str = Field(min_length=1, max_length=signing.MAX_CHARACTERS["number"])
    """The number of the result in its book."""
    book: str | None = Field(default=None, min_length=1, max_length=signing.MAX_CHARACTERS["book"])
    """The register that the result is entered in."""
    signed_by: str = Field(min_length=1, max_length=signing.MAX_CHARACTERS["signed_by"])
    """The name of the signatory."""
    signed_as: str = Field(pattern=signing.CAPACITY_PATTERN)
    """The capacity: on behalf of (`TM.`), deputising (`KT.`), by order (`TL.`), by authorisation (`TUQ.`)."""
    signature: str = Field(pattern=signing.KIND_PATTERN)
    """`wet` is signed by hand on paper; `wet_scanned` is the same with a scan."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """The hash of the signed file or of the scan."""


class ResultView(TypedDict, total=False):
    """What is known of the result so far; a field that is not known yet is absent."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc] # pydantic's documented way
    number: str | None
    book: str | None
    signed_by: str | None
    signed_as: str | None
    signature: str | None
    sha256: str | None
    blank: int | None
    """The serial number of the blank that the result is printed on."""


class ClockView(HttpModel):
    """A legal clock of the dossier; its times are office time."""

    kind: Literal["statutory"]
    """The processing time that the procedure's rules allow."""
    started_at: VietnamTime
    due_at: VietnamTime | None
    paused_since: VietnamTime | None
    """Null while the clock is not paused."""
    running: bool
    """False while paused, and after the end."""


class DossierTask(HttpModel):
    """A stage that the dossier is in, since an office time; it can be in several at once."""

    stage: str
    role: str | None
    """The role that has to act; null while the registry's answer is awaited."""
    since: VietnamTime


class TimelineEntry(HttpModel):
    """One lifecycle event."""

    sequence: int
    """1 for the dossier's first event, without gaps."""
    type: str
    """The event's short name, e.g. `DossierReceived` (docs/events.md)."""
    at: VietnamTime
    """When the event was stored, in wall time."""
    office_at: VietnamTime
    """When it happened, in office time: the clock that the law and the calendar go by."""


class DossierView(HttpModel):
    """One dossier for officers and systems."""

    dossier_id: UUID
    dossier_code: DossierCode
    procedure_code: str
    procedure_version: int
    """The version of the procedure's rules that the dossier follows: from its reception on, the one in force then."""
    state: DossierState
    national_status: NationalStatus
    due_at: DossierDue
    fee: int | None
    """In đồng."""
    result: ResultView | None
    clocks: list[ClockView]
    """Empty before reception."""
    tasks: list[DossierTask]
    """The stages that it is in now; empty after the end."""
    timeline: list[TimelineEntry]
    """Every lifecycle event of the dossier, in order."""


class TrackView(HttpModel):
    """One dossier for the citizen who holds its secret; no person in it."""

    dossier_code: DossierCode
    state: DossierState
    status: NationalStatus
    due_at: DossierDue
    timeline: list[TimelineEntry]


# Rules.


class ProcedurePage(HttpModel):
    items: list[Procedure]
    next: Next


class DayView(HttpModel):
    """One day between receipt and the due time, and why it counts or not."""

    date: date
    counted: bool
    """Whether the day counts as a working day."""
    number: int | None
    """Which working day it is; null when it does not count."""
    why: str
    why_en: str


class DueView(HttpModel):
    """How a due time comes about. Its times are office time."""

    procedure_code: str
    received_at: VietnamTime
    due_at: VietnamTime
    days: list[DayView]


class Box(Body):
    """A box of numbered blanks as the department sent it: a range of serial numbers."""

    kind: str = Field(pattern=r"^[a-z_]{3,40}$")
    """What the blanks are for, e.g. `land_certificate`: the `blank` of a procedure."""
    serial_from: int = Field(ge=0, lt=2**62)
    """The first serial number."""
    serial_to: int = Field(ge=0, lt=2**62)
    """The last serial number."""
    spoiled: int = Field(default=0, ge=0)
    """How many of the box cannot be used; they are taken off its end."""

    @model_validator(mode="after")
    def _spoiled_are_of_the_box(self) -> Box:
        if self.serial_from <= self.serial_to and self.spoiled > self.serial_to - self.serial_from + 1:
            raise broken_rule("Số phôi hỏng nhiều hơn số phôi của dải.", "More are spoiled than the box holds.")
        return self


class BoxRow(HttpModel):
    """A box in stock: the blanks from one serial number to another, both included."""

    kind: str
    serial_from: int
    serial_to: int
    used: int
    """How many of its blanks results were printed on."""
    spoiled: int
    """How many of its blanks cannot be used."""
    left: int
    """How many of its blanks can still be used."""
    received_at: VietnamTime
    """When the box was entered, in wall time."""


class BoxPage(HttpModel):
    items: list[BoxRow]
    next: Next
