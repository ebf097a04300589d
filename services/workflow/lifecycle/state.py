"""The state of one dossier as the rules use it: its open tasks and its requests to other services included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, datetime
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from services.workflow.clock.calendar import WorkingCalendar
from services.workflow.procedures import Procedure
from shared.contract.events import Fact

RECORDED = "recorded"
AWAITING_RECEPTION = "awaiting_reception"
RECEIVED = "received"
IN_PROGRESS = "in_progress"
SUPPLEMENT_REQUESTED = "supplement_requested"
PAYMENT_REQUIRED = "payment_required"
RESOLVED = "resolved"
RETURNED = "returned"
NOT_ACCEPTED = "not_accepted"
REFUSED = "refused"
WITHDRAWN = "withdrawn"
STOPPED = "stopped"

STATES = {
    RECORDED: "recorded, not received: its procedure receives nothing now",
    AWAITING_RECEPTION: "waiting for the counter's decision",
    RECEIVED: "received, with a code and a due date",
    IN_PROGRESS: "an officer's step is under way",
    SUPPLEMENT_REQUESTED: "the applicant was asked for more",
    PAYMENT_REQUIRED: "a tax or land payment is awaited",
    RESOLVED: "decided and signed, not handed over yet",
    RETURNED: "the result was handed over",
    NOT_ACCEPTED: "not accepted at reception",
    REFUSED: "refused after appraisal",
    WITHDRAWN: "withdrawn by the applicant",
    STOPPED: "stopped",
}
"""The public states. New ones may come."""
ENDED = frozenset({RETURNED, NOT_ACCEPTED, REFUSED, WITHDRAWN, STOPPED})

AWAITED = frozenset({"wanted", "delayed", "duplicate", "refused", "misshapen"})
"""States of the number in which there is no number to enter in the register."""


@dataclass(slots=True)
class Task:
    """One stay of a dossier in a stage. `role` is None if it waits for a machine; then no officer can complete it.

    `kind` names its outcomes (`outcomes.OUTCOMES`). `version` changes only when outcomes, holder or state change.
    """

    task_id: UUID
    stage: str
    kind: str
    role: str | None
    entered_at: datetime
    entered_office_at: datetime
    due_office_at: datetime | None
    version: int = 1
    state: str = "open"
    holder: str | None = None
    needs: str | None = None
    """`blanks:<kind>`: completing the task uses up one blank. The column is `waiting_for`."""
    started_at: datetime | None = None
    started_office_at: datetime | None = None
    left_at: datetime | None = None
    left_office_at: datetime | None = None
    outcome: str | None = None
    completed_by: str | None = None
    """The officer who ended the task; never public."""


@dataclass(slots=True)
class Dossier:
    """The whole state of a dossier, as stored. All its times are office time, `hold_until` too."""

    dossier_id: UUID
    procedure_code: str
    procedure_version: int
    group: str
    agency: str
    channel: str
    at_once: bool
    """Whether the dossier does not wait at reception, because an officer filed it at the counter."""
    recorded_office_at: datetime
    trace_id: UUID
    sealed_contact: str
    sealed_person: str
    sealed_subject: str
    has_personal_id: bool = False
    copies: int | None = None
    pages: int | None = None
    state: str = RECORDED
    national_status: int = 1
    dossier_code: str | None = None
    received_office_at: datetime | None = None
    due_office_at: datetime | None = None
    paused_office_at: datetime | None = None
    paid: bool = False
    """Whether the financial obligation is paid. It is not asked for again when a step is sent back."""
    fee: int | None = None
    step: int = -1
    """Index of the current step of the procedure; -1 before the first."""
    tasks: list[Task] = field(default_factory=list)
    """The open tasks."""
    appraised_by: str | None = None
    result: dict[str, Any] | None = None
    blank: int | None = None
    supplements: int = 0
    check_state: str = "none"
    """none, wanted, match, mismatch, confirmed or rejected."""
    check_key: UUID | None = None
    number_state: str = "none"
    """none, wanted, delayed, duplicate, refused, misshapen, found or not_wanted."""
    number_key: UUID | None = None
    number_asked_office_at: datetime | None = None
    number_waived: bool = False
    hold_until: datetime | None = None
    notes: list[dict[str, Any]] = field(default_factory=list)
    """Notes of officers who ended a task: {stage, outcome, by, office_at, note}. Never public."""
    lifecycle_sequence: int = 0
    request_sequence: int = 0
    notice_sequence: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def find_task(self, task_id: UUID) -> Task | None:
        return next((task for task in self.tasks if task.task_id == task_id), None)

    def find_open_task(self, stage: str, *, machine: bool | None = None) -> Task | None:
        for task in self.tasks:
            if task.stage == stage and (machine is None or (task.role is None) == machine):
                return task
        return None

    def to_json(self) -> bytes:
        """The stored form. Fields with their default are left out, because a short row costs PostgreSQL less.

        So the defaults are part of the stored form: a release that changes one must rewrite the rows.
        """
        row = _stored_dossier(self)
        row["tasks"] = [_stored_task(task) for task in self.tasks]
        return orjson.dumps(row, default=str)

    @classmethod
    def from_json(cls, text: bytes) -> Dossier:
        row = orjson.loads(text)
        row["tasks"] = [Task(**_typed(task, TASK_IDS, TASK_TIMES)) for task in row["tasks"]]
        return cls(**_typed(row, DOSSIER_IDS, DOSSIER_TIMES))


TASK_IDS = ("task_id",)
TASK_TIMES = {
    "entered_at": "entered_at",
    "entered_office_at": "entered_office_at",
    "due_at": "due_office_at",
    "started_at": "started_at",
    "started_office_at": "started_office_at",
    "left_at": "left_at",
    "left_office_at": "left_office_at",
}
DOSSIER_IDS = ("dossier_id", "trace_id", "check_key", "number_key")
DOSSIER_TIMES = {
    "recorded_at": "recorded_office_at",
    "received_at": "received_office_at",
    "due_at": "due_office_at",
    "paused_at": "paused_office_at",
    "number_asked_at": "number_asked_office_at",
    "hold_until": "hold_until",
}
"""Stored name -> field. The stored names never change, because stored rows have them."""


class _Stored:
    """Turns a dossier or a task into stored name -> value, without defaults. Reads all fields at once, for speed."""

    def __init__(self, kind: type[Dossier] | type[Task], times: Mapping[str, str]) -> None:
        stored_names = {name: stored for stored, name in times.items()}
        self._names = tuple(stored_names.get(each.name, each.name) for each in fields(kind))
        # The default of each field; MISSING, which equals no value, for a field without one.
        self._defaults = tuple(
            each.default_factory() if each.default_factory is not MISSING else each.default for each in fields(kind)
        )
        self._values = attrgetter(*(each.name for each in fields(kind)))

    def __call__(self, whole: Dossier | Task) -> dict[str, Any]:
        rows = zip(self._names, self._values(whole), self._defaults, strict=True)
        return {name: value for name, value, default in rows if value is not default and value != default}


_stored_task, _stored_dossier = _Stored(Task, TASK_TIMES), _Stored(Dossier, DOSSIER_TIMES)


def _typed(row: dict[str, Any], ids: tuple[str, ...], times: Mapping[str, str]) -> dict[str, Any]:
    for name in ids:
        if row.get(name) is not None:
            row[name] = UUID(row[name])
    for stored, name in times.items():
        if stored in row:
            text = row.pop(stored)
            row[name] = text if text is None else datetime.fromisoformat(text)
    return row


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """The present time of a decision and the resources that it may use. `wall` and `office`: now in both times."""

    wall: datetime
    office: datetime
    calendar: WorkingCalendar
    in_force: Callable[[str, date], Procedure | None]
    """The version of a procedure in force on a day, with its intake mode."""
    new_id: Callable[[], UUID]
    code_for: Callable[[str, datetime], str]
    """The next dossier code of an agency on that day."""
    take_blank: Callable[[str], int | None]
    """The next serial number of a kind of blank, or None when there is none."""


@dataclass(frozen=True, slots=True)
class Completion:
    """How an officer ends a task."""

    outcome: str
    version: int
    """The task's version that the officer has seen."""
    holder: str
    note: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The fields that come with the outcome (`Outcome.fields`), as sent."""
    open_for_reception: bool = True
    """Whether the procedure's intake mode allows reception now."""


class EmittedEvent(NamedTuple):
    """A fact to publish, with its sequence in the dossier's stream."""

    sequence: int
    ce_id: UUID
    fact: Fact


@dataclass(slots=True)
class Decision:
    """What follows: events in order; new, changed and closed tasks; timers (office time; None cancels a timer)."""

    events: list[EmittedEvent] = field(default_factory=list)
    tasks: dict[UUID, Task] = field(default_factory=dict)
    timers: dict[str, datetime | None] = field(default_factory=dict)
