"""Builds a decision: events with their sequence, opened and closed tasks, notices, requests and timers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.workflow.clock.deadlines import due
from services.workflow.lifecycle.state import Completion, Decision, DecisionContext, Dossier, EmittedEvent, Task
from services.workflow.procedures import Procedure
from shared.contract.events import (
    Fact,
    IdCheckWanted,
    IdNumberIssued,
    IdNumberNoLongerWanted,
    IdNumberRequested,
    IdNumberWanted,
    LifecycleFact,
    NoticeWanted,
)

NOTICES = {
    "DossierRecorded": "recorded",
    "DossierReceived": "received",
    "DossierNotAccepted": "not_accepted",
    "SupplementRequested": "supplement_requested",
    "PaymentRequired": "payment_required",
    "DossierRefused": "refused",
    "DossierWithdrawn": "withdrawn",
    "DossierResolved": "ready",
    "ResultReturned": "returned",
    "ClockRestarted": "supplement_received",
    "IdNumberIssued": "number_issued",
    "RequestDeclined": "request_declined",
}
"""Fact that causes a notice -> kind of the notice."""
OTHER_NOTICES = {
    "opened": "StepStarted",
    "supplement_received": "StepStarted",
    "ready_without_number": "DossierResolved",
}
"""Kind of notice with its own text, where the text for the fact would mislead -> the fact that causes the notice."""

NUMBER_TASKS = ("awaited", "number_doubtful", "number_misshapen")
"""Kinds of tasks that stay open when the result is returned without the number."""


class DecisionBuilder:
    """Builds one decision: changes `dossier` in place and collects in `decision` what follows."""

    def __init__(self, dossier: Dossier, procedure: Procedure, context: DecisionContext) -> None:
        self.dossier, self.procedure, self.context = dossier, procedure, context
        self.decision = Decision()

    def emit(self, kind: type[LifecycleFact], *, status: int | None = None, **fields: Any) -> None:
        """Add a fact of the lifecycle to the decision. `status`: the new national status, if the fact changes it."""
        dossier = self.dossier
        if status is not None:
            dossier.national_status = status
        dossier.lifecycle_sequence += 1
        fact = kind(
            office_at=self.context.office,
            procedure_code=dossier.procedure_code,
            procedure_version=dossier.procedure_version,
            receiving_agency=dossier.agency,
            national_status=status,
            **fields,
        )
        self.decision.events.append(EmittedEvent(dossier.lifecycle_sequence, self.context.new_id(), fact))

    def notify(self, cause: type[LifecycleFact], kind: str | None = None) -> None:
        """Ask for a notice about the fact `cause`: code and status, nothing else. `kind`: one of OTHER_NOTICES."""
        assert kind is None or OTHER_NOTICES[kind] == cause.__name__, "this kind of notice has no text"
        dossier = self.dossier
        dossier.notice_sequence += 1
        fact = NoticeWanted(
            office_at=self.context.office,
            kind=kind or NOTICES[cause.__name__],
            cause=cause.__name__,
            dossier_code=dossier.dossier_code,
            national_status=dossier.national_status,
            due_at=dossier.due_office_at,
            receiving_agency=dossier.agency,
            sealed_contact=dossier.sealed_contact,
        )
        self.decision.events.append(EmittedEvent(dossier.notice_sequence, self.context.new_id(), fact))

    def _request(self, fact: Fact) -> UUID:
        self.dossier.request_sequence += 1
        key = self.context.new_id()
        self.decision.events.append(EmittedEvent(self.dossier.request_sequence, key, fact))
        return key

    def request_check(self) -> None:
        """Ask the registry to check the applicant's identity. The check runs beside the officers' steps."""
        dossier = self.dossier
        dossier.check_key = self._request(
            IdCheckWanted(
                office_at=self.context.office, procedure_group=dossier.group, sealed_person=dossier.sealed_person
            )
        )
        dossier.check_state = "wanted"
        self.open_task("identity_check", "awaited", None)

    def request_number(self) -> None:
        """Ask the registry for a number, with a new key. Never call it while an older request may still be answered.

        After the end of the dossier the request is not published, but a number that is issued still is.
        """
        dossier = self.dossier
        dossier.number_key = self._request(
            IdNumberWanted(
                office_at=self.context.office, procedure_group=dossier.group, sealed_subject=dossier.sealed_subject
            )
        )
        dossier.number_state = "wanted"
        dossier.number_asked_office_at = self.context.office
        self.open_task("id_number", "awaited", None)
        if not dossier.ended:
            self.emit(IdNumberRequested)

    def drop_number_request(self) -> None:
        """Withdraw the request for a number. A misshapen number was issued already, so it is published."""
        dossier = self.dossier
        if dossier.number_key is not None and dossier.number_state in ("wanted", "delayed", "duplicate"):
            self._request(IdNumberNoLongerWanted(office_at=self.context.office, request_key=dossier.number_key))
            dossier.number_state = "not_wanted"
        elif dossier.number_state == "misshapen":
            dossier.number_state = "found"
            self.emit(IdNumberIssued)

    def open_task(
        self, stage: str, kind: str, role: str | None, *, hours: float | None = None, needs: str | None = None
    ) -> Task:
        """Open a task. It is due after `hours` working hours, but never after the dossier's legal due date."""
        context, target = self.context, self.dossier.due_office_at
        if hours is not None:
            own = context.calendar.add_working_seconds(context.office, hours * 3600)
            target = own if target is None else min(own, target)
        task = Task(
            task_id=context.new_id(),
            stage=stage,
            kind=kind,
            role=role,
            entered_at=context.wall,
            entered_office_at=context.office,
            due_office_at=target,
            needs=needs,
        )
        self.dossier.tasks.append(task)
        self.decision.tasks[task.task_id] = task
        return task

    def close_task(self, task: Task, outcome: str) -> None:
        task.state, task.outcome = "closed", outcome
        task.version += 1
        task.left_at, task.left_office_at = self.context.wall, self.context.office
        self.dossier.tasks.remove(task)
        self.decision.tasks[task.task_id] = task

    def add_note(self, task: Task, completion: Completion) -> None:
        """Keep the officer's note for the next officer and for the letter to the citizen."""
        if completion.note and completion.note.strip():
            self.dossier.notes.append(
                {
                    "stage": task.stage,
                    "outcome": completion.outcome,
                    "by": completion.holder,
                    "office_at": self.context.office.isoformat(),
                    "note": completion.note.strip(),
                }
            )

    def close_all_tasks(self, outcome: str, *, but_number: bool = False) -> None:
        """Close all tasks. `but_number`: except those that wait for a number."""
        for task in list(self.dossier.tasks):
            if not (but_number and task.kind in NUMBER_TASKS and task.stage == "id_number"):
                self.close_task(task, outcome)

    def set_timer(self, kind: str, at: datetime | None) -> None:
        self.decision.timers[kind] = at

    def due_from(self, start: datetime) -> datetime:
        return due(self.context.calendar, start, self.procedure.time)

    def hold_time(self, day: datetime) -> datetime:
        """The time on that day until which a missing number holds the return."""
        hour = self.procedure.number_hold_until
        return day.replace(hour=hour.hour, minute=hour.minute, second=0, microsecond=0)

    def next_hold_time(self) -> datetime:
        following = self.context.calendar.next_working_day(self.context.office.date())
        return self.hold_time(datetime.combine(following, self.context.office.timetz()))

    def pause_clock(self) -> None:
        self.dossier.paused_office_at = self.context.office

    def resume_clock(self) -> None:
        """Move the due day by the working days of the pause."""
        dossier = self.dossier
        if dossier.paused_office_at is not None and dossier.due_office_at is not None:
            calendar, day, paused = self.context.calendar, dossier.paused_office_at.date(), 0
            while day < self.context.office.date():
                day += timedelta(days=1)
                paused += calendar.is_working_day(day)
            dossier.due_office_at = calendar.end_of(calendar.working_day_after(dossier.due_office_at.date(), paused))
            if dossier.hold_until is not None:
                dossier.hold_until = self.hold_time(dossier.due_office_at)
        dossier.paused_office_at = None
