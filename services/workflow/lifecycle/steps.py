"""The officers' steps in the order of the procedure. A missing number may hold the return, an identity check the
approval.

Every rule here raises Refused before its first change.
"""

from __future__ import annotations

from services.workflow.lifecycle import signing, state
from services.workflow.lifecycle.decision_builder import DecisionBuilder
from services.workflow.lifecycle.state import AWAITED, Completion, Task
from services.workflow.procedures import Step
from shared.contract.events import (
    ClockPaused,
    ClockResumed,
    ConsultationAnswered,
    ConsultationAsked,
    DossierRefused,
    DossierResolved,
    PaymentMade,
    PaymentRequired,
    ResultReturned,
    StepCompleted,
    StepReturned,
    StepStarted,
)
from shared.refusals import Refused

PAYMENT_HOURS = 40.0


def current_step(builder: DecisionBuilder) -> Step | None:
    steps = builder.procedure.steps
    return steps[builder.dossier.step] if 0 <= builder.dossier.step < len(steps) else None


def go_on(builder: DecisionBuilder) -> None:
    """Go to the next step. When only the return is left, the dossier is resolved."""
    builder.dossier.step += 1
    step = current_step(builder)
    if step is not None and step.stage == "return" and builder.dossier.step > 0:
        _resolve(builder)
    open_step(builder)


def open_step(builder: DecisionBuilder) -> None:
    """Open the task of the current step, unless it has to wait for a check or a number."""
    step = current_step(builder)
    if step is None:
        return
    if step.stage == "approval" and check_holds(builder):
        return
    if step.stage == "return" and number_holds(builder):
        return
    needs = f"blanks:{builder.procedure.blank}" if step.stage == "issuing" and builder.procedure.blank else None
    task = builder.open_task(step.stage, step.stage, step.role, hours=step.working_hours, needs=needs)
    first = builder.dossier.national_status == 2
    if builder.dossier.state == state.RECEIVED:
        builder.dossier.state = state.IN_PROGRESS
    builder.emit(StepStarted, status=4 if first else None, stage=step.stage, task_id=task.task_id)
    if step.stage == "consultation":
        builder.emit(ConsultationAsked, answer_due_at=task.due_office_at)
    if step.stage == "return" and builder.dossier.state == state.RESOLVED:
        # Not earlier: nobody should come for a result whose return is held.
        without = builder.dossier.number_state in AWAITED
        builder.notify(DossierResolved, "ready_without_number" if without else None)


def check_holds(builder: DecisionBuilder) -> bool:
    """Whether approval waits for the identity check, which it does only if the procedure says so."""
    return builder.procedure.identity_check == "required" and builder.dossier.check_state in ("wanted", "mismatch")


def number_holds(builder: DecisionBuilder) -> bool:
    """Whether the return waits for the number. At the end of the hold the signatory decides; no timer returns a result.

    Waiting for another agency does not stop the legal clock (decree 61/2018 art. 19(5)).
    """
    dossier = builder.dossier
    if dossier.number_state not in AWAITED or dossier.number_waived:
        return False
    if dossier.hold_until is not None and builder.context.office < dossier.hold_until:
        builder.set_timer("number_hold", dossier.hold_until)
    elif not any(task.kind == "number_held" for task in dossier.tasks):
        builder.open_task("id_number", "number_held", "signatory", hours=1.0)
    return True


def _finish(builder: DecisionBuilder, task: Task, outcome: str) -> None:
    builder.close_task(task, outcome)
    builder.emit(StepCompleted, stage=task.stage, task_id=task.task_id, outcome=outcome)


def agree(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    builder.dossier.appraised_by = completion.holder
    _finish(builder, task, completion.outcome)
    if builder.procedure.financial_obligation and not builder.dossier.paid:
        builder.pause_clock()
        builder.dossier.state = state.PAYMENT_REQUIRED
        builder.emit(PaymentRequired, status=6)
        builder.emit(ClockPaused, reason="financial_obligation")
        builder.notify(PaymentRequired)
        builder.open_task("financial_obligation", "financial_obligation", "counter", hours=PAYMENT_HOURS)
    else:
        go_on(builder)


def take_payment(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    builder.close_task(task, completion.outcome)
    builder.resume_clock()
    builder.dossier.paid = True
    builder.dossier.state = state.IN_PROGRESS
    builder.emit(PaymentMade, status=4)
    builder.emit(ClockResumed, reason="financial_obligation", due_at=builder.dossier.due_office_at)
    go_on(builder)


def take_opinion(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    builder.emit(ConsultationAnswered)
    _finish(builder, task, completion.outcome)
    go_on(builder)


def sign(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    if builder.procedure.four_eyes and completion.holder == builder.dossier.appraised_by:
        raise Refused(
            "four-eyes",
            "Người thẩm định không được ký.",
            "The officer who appraised it may not sign it.",
            conflict=True,
        )
    signature = signing.read_signature(builder.dossier, builder.procedure, completion.fields, completion.holder)
    signing.sign(builder, signature)
    _finish(builder, task, completion.outcome)
    go_on(builder)


def issue(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    dossier = builder.dossier
    entry = signing.read_entry(dossier, completion.fields)
    # Taken after everything else that can refuse: a blank that was taken cannot be given to another dossier.
    blank = _take_blank(builder)
    signing.enter(dossier, entry)
    dossier.blank = blank
    dossier.result = {**(dossier.result or {}), "blank": blank}
    _finish(builder, task, completion.outcome)
    go_on(builder)


def _take_blank(builder: DecisionBuilder) -> int | None:
    """The blank that the dossier has, else the next from the stock; None if the procedure uses none."""
    if builder.procedure.blank is None or builder.dossier.blank is not None:
        return builder.dossier.blank
    serial = builder.context.take_blank(builder.procedure.blank)
    if serial is None:
        raise Refused("no-blank", "Hết phôi, chưa phát hành được.", "There is no blank in stock.", conflict=True)
    return serial


def hand_over(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    if builder.dossier.state != state.RESOLVED:
        _resolve(builder)
    _finish(builder, task, completion.outcome)
    _return(builder)


def hand_over_at_once(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    """Same visit: sign, resolve and return at once (decree 61/2018 art. 17(4))."""
    signature = signing.read_signature(builder.dossier, builder.procedure, completion.fields, completion.holder)
    entry = signing.read_entry(builder.dossier, completion.fields)
    signing.sign(builder, signature)
    signing.enter(builder.dossier, entry)
    builder.close_task(task, completion.outcome)
    _resolve(builder)
    _return(builder)
    builder.notify(ResultReturned)


def refuse(builder: DecisionBuilder, task: Task, _: Completion) -> None:
    """Refuse on substance, with a reason, within the processing time (decree 61/2018 art. 19(8))."""
    if builder.dossier.state == state.RESOLVED:
        raise Refused(
            "already-ended", "Hồ sơ đã giải quyết xong.", "The dossier has been decided already.", conflict=True
        )
    builder.drop_number_request()
    _finish(builder, task, "refuse")
    builder.close_all_tasks("refused")
    builder.dossier.state = state.REFUSED
    builder.emit(DossierRefused, status=builder.procedure.refusal_status, reason="refused")
    builder.notify(DossierRefused)
    builder.set_timer("number_hold", None)


def send_back(builder: DecisionBuilder, task: Task, _: Completion) -> None:
    """Go back one step. If that is the approval, the signature becomes void."""
    if builder.dossier.step < 1:
        raise Refused(
            "no-step-before", "Không có bước trước để trả lại.", "There is no step before this one.", conflict=True
        )
    builder.close_task(task, "send_back")
    builder.dossier.step -= 1
    before = current_step(builder)
    assert before is not None
    if before.stage == "approval":
        signing.void_signature(builder.dossier)
    builder.emit(StepReturned, stage=task.stage, task_id=task.task_id, outcome="send_back", back_to=before.stage)
    open_step(builder)


def _resolve(builder: DecisionBuilder) -> None:
    """Decide the dossier. A result without a number gets the dossier's code as its number."""
    result = builder.dossier.result or {}
    builder.dossier.result = {**result, "number": result.get("number") or builder.dossier.dossier_code}
    builder.dossier.state = state.RESOLVED
    builder.emit(DossierResolved, status=9)


def _return(builder: DecisionBuilder) -> None:
    without = builder.dossier.number_state in AWAITED
    builder.dossier.state = state.RETURNED
    builder.close_all_tasks("ended", but_number=without)
    builder.emit(ResultReturned, status=10, without_number=without)
    builder.set_timer("number_hold", None)
