"""From submission to reception, supplements and withdrawal."""

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
"""Working hours to answer an online submission (decree 45/2020; unverified)."""


def begin(fact: DossierSubmitted, dossier_id: Any, trace_id: Any, group: str) -> Dossier:
    """A new dossier as submitted, before the first decision."""
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
        recorded_office_at=fact.office_at,
        trace_id=trace_id,
        sealed_contact=fact.sealed_contact,
        sealed_person=fact.sealed_person,
        sealed_subject=fact.sealed_subject,
        has_personal_id=fact.has_personal_id,
        copies=fact.copies,
        pages=fact.pages,
    )


def on_submitted(builder: DecisionBuilder, fact: DossierSubmitted, *, open_for_reception: bool) -> None:
    """Record a submission, and receive it at once if an officer filed it at the counter."""
    waiting_for = None
    if not open_for_reception:
        waiting_for = "record_only"
    elif not builder.dossier.at_once:
        waiting_for = "reception"
    builder.emit(
        DossierRecorded,
        status=1,
        channel=fact.channel,
        assisted=fact.assisted_by_kind is not None,
        waiting_for=waiting_for,
    )
    if open_for_reception:
        _receive_or_wait(builder, fact.office_at)
    else:
        builder.dossier.state = state.RECORDED
        builder.notify(DossierRecorded)


def on_opened(builder: DecisionBuilder) -> None:
    """Continue with a recorded dossier as with a new submission, because its procedure was opened."""
    if builder.dossier.state == state.RECORDED:
        _receive_or_wait(builder, builder.context.office)
        if not builder.dossier.at_once:
            _publish_return_to_reception(builder, "opened")


def _receive_or_wait(builder: DecisionBuilder, at: datetime) -> None:
    if builder.dossier.at_once:
        receive(builder, at)
    else:
        _await_reception(builder)


def _await_reception(builder: DecisionBuilder) -> None:
    builder.dossier.state = state.AWAITING_RECEPTION
    builder.open_task("reception", "reception", "counter", hours=RECEPTION_HOURS)


def _publish_return_to_reception(builder: DecisionBuilder, kind: str) -> None:
    """Publish StepStarted when a dossier returns to reception. After a submission DossierRecorded already says so."""
    task = builder.dossier.find_open_task("reception")
    assert task is not None
    builder.emit(StepStarted, status=1, stage="reception", task_id=task.task_id)
    builder.notify(StepStarted, kind)


def accept(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    """Receive a dossier that waited at reception. Raises Refused `procedure-record-only`."""
    if not completion.open_for_reception:
        raise Refused(
            "procedure-record-only",
            "Thủ tục đang chỉ ghi nhận, chưa tiếp nhận hồ sơ.",
            "The procedure only records submissions now and receives none.",
            conflict=True,
        )
    builder.close_task(task, completion.outcome)
    receive(builder, builder.context.office)


def receive(builder: DecisionBuilder, at: datetime) -> None:
    """Receive a dossier: fix its code and the version of the procedure in force that day, and set its due date.

    `at` is the office time of the reception. A dossier filed at the counter is received at the time of filing,
    even if this service reads the submission later.
    """
    dossier, context = builder.dossier, builder.context
    in_force = context.in_force(dossier.procedure_code, at.astimezone(VIETNAM).date())
    if in_force is not None:
        builder.procedure = in_force
        dossier.procedure_version = in_force.version
    dossier.dossier_code = context.code_for(dossier.agency, at)
    dossier.received_office_at = at
    dossier.due_office_at = builder.due_from(at)
    dossier.fee = builder.procedure.fee.amount(dossier.copies, dossier.pages)
    dossier.state = state.RECEIVED
    builder.emit(DossierReceived, status=2, dossier_code=dossier.dossier_code, due_at=dossier.due_office_at)
    if not builder.procedure.same_visit:
        builder.notify(DossierReceived)
    if builder.procedure.identity_check != "none" and dossier.has_personal_id:
        builder.request_check()
    else:
        dossier.sealed_person = ""  # kept only for the registry
    if builder.procedure.id_number:
        dossier.hold_until = builder.hold_time(dossier.due_office_at)
        builder.request_number()
    else:
        dossier.sealed_subject = ""
    if builder.procedure.same_visit:
        builder.open_task("return", "same_visit", "counter")
    else:
        steps.go_on(builder)


def not_accept(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    """Refuse reception (form 03): the dossier gets no code and no clock."""
    builder.close_task(task, completion.outcome)
    builder.close_all_tasks("not_accepted")
    builder.dossier.state = state.NOT_ACCEPTED
    builder.emit(DossierNotAccepted, status=3, reason="not_accepted")
    builder.notify(DossierNotAccepted)


def ask_supplement(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    """Ask for a supplement: once, complete, in writing (decree 61/2018 arts 15(3), 17, 19(4)). The clock stops."""
    dossier = builder.dossier
    if dossier.supplements >= builder.procedure.supplement_allowed:
        raise Refused(
            "supplement-already-asked",
            "Chỉ được yêu cầu bổ sung một lần.",
            "A supplement may be asked for only once.",
            conflict=True,
        )
    codes = _known_components(builder, completion.fields.get("components"))
    builder.close_task(task, completion.outcome)
    dossier.supplements += 1
    dossier.state = state.SUPPLEMENT_REQUESTED
    builder.emit(SupplementRequested, status=5, components=codes)
    if dossier.received_office_at is not None:
        builder.pause_clock()
        builder.emit(ClockPaused, reason="supplement")
    builder.notify(SupplementRequested)


def _known_components(builder: DecisionBuilder, components: Any) -> tuple[str, ...]:
    """The codes of the requested components. Raises Refused for any other text: the public fact has no free text."""
    codes = [] if components is None else components
    known = {component.code for component in builder.procedure.components}
    if not isinstance(codes, list) or not all(isinstance(code, str) and code in known for code in codes):
        raise Refused(
            "unknown-component",
            "Thành phần hồ sơ không có trong thủ tục.",
            "The procedure has no such component.",
        )
    return tuple(dict.fromkeys(codes))


def on_supplement(builder: DecisionBuilder, fact: SupplementSubmitted) -> None:
    """Go back to the step that asked. A clock that had started begins again from zero (decree 61/2018 art. 19(4)).

    The clock counts from the time when the supplement was submitted, not when this service reads it, and never from a
    time before the supplement was asked for.
    """
    dossier = builder.dossier
    if dossier.state != state.SUPPLEMENT_REQUESTED:
        _decline(builder, "supplement", "not-asked" if not dossier.ended else "already-ended")
        return
    if dossier.received_office_at is None:
        _await_reception(builder)
        _publish_return_to_reception(builder, "supplement_received")
        return
    dossier.due_office_at = builder.due_from(max(fact.office_at, dossier.paused_office_at or fact.office_at))
    dossier.paused_office_at = None
    if dossier.hold_until is not None:
        dossier.hold_until = builder.hold_time(dossier.due_office_at)
    dossier.state = state.IN_PROGRESS
    builder.emit(ClockRestarted, status=4, reason="supplement", due_at=dossier.due_office_at)
    builder.notify(ClockRestarted)
    steps.open_step(builder)


def on_withdrawal(builder: DecisionBuilder, _: WithdrawalRequested) -> None:
    """Withdraw the dossier if it is not decided yet. Of a withdrawal and a completion, the first to commit wins."""
    dossier = builder.dossier
    if dossier.ended or dossier.state == state.RESOLVED:
        _decline(builder, "withdrawal", "already-ended" if dossier.ended else "already-resolved")
        return
    builder.drop_number_request()
    builder.close_all_tasks("withdrawn")
    dossier.state = state.WITHDRAWN
    builder.emit(DossierWithdrawn, status=7)
    builder.notify(DossierWithdrawn)
    builder.set_timer("number_hold", None)


def _decline(builder: DecisionBuilder, request: str, reason: str) -> None:
    builder.emit(RequestDeclined, request=request, reason=reason)
    builder.notify(RequestDeclined)


def on_component_stored(_: DecisionBuilder, __: ComponentStored) -> None:
    """A stored component changes no decision."""
