"""From submission to reception, and what an applicant may still hand in or take back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.workflow.lifecycle import state, steps
from services.workflow.lifecycle.decision_builder import DecisionBuilder
from services.workflow.lifecycle.state import Completion, Dossier, Task
from shared.clock import VIETNAM
from shared.contract.events import (
    ClockPaused,
    ClockRestarted,
    ComponentStored,
    DossierNotAccepted,
    DossierReceived,
    DossierRecorded,
    DossierSubmitted,
    DossierWithdrawn,
    RequestDeclined,
    StepStarted,
    SupplementRequested,
    SupplementSubmitted,
    WithdrawalRequested,
)
from shared.refusals import Refused

RECEPTION_HOURS = 8.0
"""Working hours to answer what was filed online (decree 45/2020, mark C)."""


def begin(fact: DossierSubmitted, dossier_id: Any, trace_id: Any, group: str) -> Dossier:
    """The dossier as submitted, before anything was decided about it."""
    counter = fact.caller_role == "counter"
    at_counter = fact.channel == "direct" or (fact.channel == "online" and fact.assisted_by_kind == "officer")
    return Dossier(
        dossier_id=dossier_id,
        procedure_code=fact.procedure_code,
        procedure_version=fact.procedure_version,
        group=group,
        agency=fact.receiving_agency,
        channel=fact.channel,
        at_once=counter and at_counter,
        recorded_at=fact.office_at,
        trace_id=trace_id,
        sealed_contact=fact.sealed_contact,
        sealed_person=fact.sealed_person,
        sealed_subject=fact.sealed_subject,
        has_personal_id=fact.has_personal_id,
        copies=fact.copies,
        pages=fact.pages,
    )


def on_submitted(pen: DecisionBuilder, fact: DossierSubmitted, *, open_for_reception: bool) -> None:
    """Recorded; received at once where an officer filed it at the counter."""
    waiting_for = None
    if not open_for_reception:
        waiting_for = "record_only"
    elif not pen.dossier.at_once:
        waiting_for = "reception"
    pen.tell(
        DossierRecorded,
        status=1,
        channel=fact.channel,
        assisted=fact.assisted_by_kind is not None,
        waiting_for=waiting_for,
    )
    if open_for_reception:
        _let_in(pen, fact.office_at)
    else:
        pen.dossier.state = state.RECORDED
        pen.notify(DossierRecorded)


def on_opened(pen: DecisionBuilder) -> None:
    """The procedure receives again: what was only recorded goes the way it would have gone."""
    if pen.dossier.state == state.RECORDED:
        _let_in(pen, pen.moment.office)
        if not pen.dossier.at_once:
            _tell_waiting(pen, "opened")


def _let_in(pen: DecisionBuilder, at: datetime) -> None:
    if pen.dossier.at_once:
        receive(pen, at)
    else:
        _await_reception(pen)


def _await_reception(pen: DecisionBuilder) -> None:
    pen.dossier.state = state.AWAITING_RECEPTION
    pen.open_task("reception", "reception", "counter", hours=RECEPTION_HOURS)


def _tell_waiting(pen: DecisionBuilder, kind: str) -> None:
    """It waits at reception from now on. Said where no other fact says so: a submission's DossierRecorded does."""
    task = pen.dossier.standing_in("reception")
    assert task is not None
    pen.tell(StepStarted, status=1, stage="reception", task_id=task.task_id)
    pen.notify(StepStarted, kind)


def accept(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    if not completion.open_for_reception:
        raise Refused(
            "procedure-record-only",
            "Thủ tục đang chỉ ghi nhận, chưa tiếp nhận hồ sơ.",
            "The procedure records submissions and receives none now.",
            conflict=True,
        )
    pen.close_task(task, completion.outcome)
    receive(pen, pen.moment.office)


def receive(pen: DecisionBuilder, at: datetime) -> None:
    """Code, due date and the version of the rules in force that day; none of them changes again but the due date.

    `at` is when an officer took it: a submission that this service reads late was still received when it was filed.
    """
    dossier, moment = pen.dossier, pen.moment
    in_force = moment.in_force(dossier.procedure_code, at.astimezone(VIETNAM).date())
    if in_force is not None:
        pen.procedure = in_force
        dossier.procedure_version = in_force.version
    dossier.dossier_code = moment.code_for(dossier.agency, at)
    dossier.received_at = at
    dossier.due_at = pen.due_from(at)
    dossier.fee = pen.procedure.fee.amount(dossier.copies, dossier.pages)
    dossier.state = state.RECEIVED
    pen.tell(DossierReceived, status=2, dossier_code=dossier.dossier_code, due_at=dossier.due_at)
    if not pen.procedure.same_visit:
        pen.notify(DossierReceived)
    if pen.procedure.identity_check != "none" and dossier.has_personal_id:
        pen.ask_check()
    else:
        dossier.sealed_person = ""  # the registry will not be asked: what nobody needs is not kept
    if pen.procedure.id_number:
        dossier.hold_until = pen.hold_time(dossier.due_at)
        pen.ask_number()
    else:
        dossier.sealed_subject = ""
    if pen.procedure.same_visit:
        pen.open_task("return", "same_visit", "counter")
    else:
        steps.go_on(pen)


def not_accept(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    """Not received at all (form 03): no code, no clock."""
    pen.close_task(task, completion.outcome)
    pen.close_all("not_accepted")
    pen.dossier.state = state.NOT_ACCEPTED
    pen.tell(DossierNotAccepted, status=3, reason="not_accepted")
    pen.notify(DossierNotAccepted)


def ask_supplement(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    """Once, completely, in writing (decree 61/2018 art. 15(3), 17, 19(4)); the clock stands until it comes."""
    dossier = pen.dossier
    if dossier.supplements >= pen.procedure.supplement_allowed:
        raise Refused(
            "supplement-already-asked",
            "Chỉ được yêu cầu bổ sung một lần.",
            "A supplement may be asked for only once.",
            conflict=True,
        )
    codes = _known_components(pen, completion.fields.get("components"))
    pen.close_task(task, completion.outcome)
    dossier.supplements += 1
    dossier.state = state.SUPPLEMENT_REQUESTED
    pen.tell(SupplementRequested, status=5, components=codes)
    if dossier.received_at is not None:
        pen.pause()
        pen.tell(ClockPaused, reason="supplement")
    pen.notify(SupplementRequested)


def _known_components(pen: DecisionBuilder, said: Any) -> tuple[str, ...]:
    """Only the procedure's own codes: they go into a public fact, where nobody's free text may stand."""
    codes = [] if said is None else said
    known = {component.code for component in pen.procedure.components}
    if not isinstance(codes, list) or not all(isinstance(code, str) and code in known for code in codes):
        raise Refused(
            "unknown-component",
            "Thành phần hồ sơ không có trong thủ tục.",
            "The procedure has no such component.",
        )
    return tuple(dict.fromkeys(codes))


def on_supplement(pen: DecisionBuilder, fact: SupplementSubmitted) -> None:
    """Complete now: back to whoever asked; a clock that ran starts again from the beginning (art. 19(4)).

    From when it was handed in, not from when it is read; but not from before it was asked for.
    """
    dossier = pen.dossier
    if dossier.state != state.SUPPLEMENT_REQUESTED:
        _decline(pen, "supplement", "not-asked" if not dossier.ended else "already-ended")
        return
    if dossier.received_at is None:
        _await_reception(pen)
        _tell_waiting(pen, "supplement_received")
        return
    dossier.due_at = pen.due_from(max(fact.office_at, dossier.paused_at or fact.office_at))
    dossier.paused_at = None
    if dossier.hold_until is not None:
        dossier.hold_until = pen.hold_time(dossier.due_at)
    dossier.state = state.IN_PROGRESS
    pen.tell(ClockRestarted, status=4, reason="supplement", due_at=dossier.due_at)
    pen.notify(ClockRestarted)
    steps.open_step(pen)


def on_withdrawal(pen: DecisionBuilder, _: WithdrawalRequested) -> None:
    """The applicant's right until it is decided; whichever commits first, this or the decision, has won."""
    dossier = pen.dossier
    if dossier.ended or dossier.state == state.RESOLVED:
        _decline(pen, "withdrawal", "already-ended" if dossier.ended else "already-resolved")
        return
    pen.drop_number()
    pen.close_all("withdrawn")
    dossier.state = state.WITHDRAWN
    pen.tell(DossierWithdrawn, status=7)
    pen.notify(DossierWithdrawn)
    pen.set_timer("number_hold", None)


def _decline(pen: DecisionBuilder, request: str, reason: str) -> None:
    pen.tell(RequestDeclined, request=request, reason=reason)
    pen.notify(RequestDeclined)


def on_component_stored(_: DecisionBuilder, __: ComponentStored) -> None:
    """Nothing is decided by it."""
