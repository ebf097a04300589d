"""The officers' steps, in the procedure's order, to the end; the number may hold the return, a check the approval."""

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


def current_step(pen: DecisionBuilder) -> Step | None:
    steps = pen.procedure.steps
    return steps[pen.dossier.step] if 0 <= pen.dossier.step < len(steps) else None


def go_on(pen: DecisionBuilder) -> None:
    """To the next step; with nothing left but the return, it is resolved."""
    pen.dossier.step += 1
    step = current_step(pen)
    if step is not None and step.stage == "return" and pen.dossier.step > 0:
        _resolve(pen)
    open_step(pen)


def open_step(pen: DecisionBuilder) -> None:
    """Open the current step's task, unless something it may not go without is still awaited."""
    step = current_step(pen)
    if step is None:
        return
    if step.stage == "approval" and check_holds(pen):
        return
    if step.stage == "return" and number_holds(pen):
        return
    needs = f"blanks:{pen.procedure.blank}" if step.stage == "issuing" and pen.procedure.blank else None
    task = pen.open_task(step.stage, step.stage, step.role, hours=step.working_hours, needs=needs)
    first = pen.dossier.national_status == 2
    if pen.dossier.state == state.RECEIVED:
        pen.dossier.state = state.IN_PROGRESS
    pen.tell(StepStarted, status=4 if first else None, stage=step.stage, task_id=task.task_id)
    if step.stage == "consultation":
        pen.tell(ConsultationAsked, answer_due_at=task.due_at)
    if step.stage == "return" and pen.dossier.state == state.RESOLVED:
        # Only now: while it is held for the number nobody should come for it.
        without = pen.dossier.number_state in AWAITED
        pen.notify(DossierResolved, "ready_without_number" if without else None)


def check_holds(pen: DecisionBuilder) -> bool:
    """Approval waits for the identity check only where the procedure says so."""
    return pen.procedure.identity_check == "required" and pen.dossier.check_state in ("wanted", "mismatch")


def number_holds(pen: DecisionBuilder) -> bool:
    """The return waits for the number until the set hour; then the signatory decides, never the clock by itself."""
    dossier = pen.dossier
    if dossier.number_state not in AWAITED or dossier.number_waived:
        return False
    if dossier.hold_until is not None and pen.moment.office < dossier.hold_until:
        pen.set_timer("number_hold", dossier.hold_until)
    elif not any(task.kind == "number_held" for task in dossier.tasks):
        pen.open_task("id_number", "number_held", "signatory", hours=1.0)
    return True


def _finish(pen: DecisionBuilder, task: Task, outcome: str) -> None:
    pen.close_task(task, outcome)
    pen.tell(StepCompleted, stage=task.stage, task_id=task.task_id, outcome=outcome)


def agree(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    pen.dossier.appraised_by = completion.holder
    _finish(pen, task, completion.outcome)
    if pen.procedure.financial_obligation and not pen.dossier.paid:
        pen.pause()
        pen.dossier.state = state.PAYMENT_REQUIRED
        pen.tell(PaymentRequired, status=6)
        pen.tell(ClockPaused, reason="financial_obligation")
        pen.notify(PaymentRequired)
        pen.open_task("financial_obligation", "financial_obligation", "counter", hours=PAYMENT_HOURS)
    else:
        go_on(pen)


def take_payment(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    pen.close_task(task, completion.outcome)
    pen.resume()
    pen.dossier.paid = True
    pen.dossier.state = state.IN_PROGRESS
    pen.tell(PaymentMade, status=4)
    pen.tell(ClockResumed, reason="financial_obligation", due_at=pen.dossier.due_at)
    go_on(pen)


def take_opinion(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    pen.tell(ConsultationAnswered)
    _finish(pen, task, completion.outcome)
    go_on(pen)


def sign(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    if pen.procedure.four_eyes and completion.holder == pen.dossier.appraised_by:
        raise Refused("four-eyes", "Người thẩm định không được ký.", "Who appraised it may not sign it.", conflict=True)
    signature = signing.read_signature(pen.dossier, pen.procedure, completion.fields, completion.holder)
    signing.sign(pen, signature)
    _finish(pen, task, completion.outcome)
    go_on(pen)


def issue(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    dossier = pen.dossier
    entry = signing.read_entry(dossier, completion.fields)
    # The last thing that can refuse: nobody else may have the blank that was taken.
    blank = _take_blank(pen)
    signing.enter(dossier, entry)
    dossier.blank = blank
    dossier.result = {**(dossier.result or {}), "blank": blank}
    _finish(pen, task, completion.outcome)
    go_on(pen)


def _take_blank(pen: DecisionBuilder) -> int | None:
    """The dossier's blank: the one it has, else the next from the stock; None where the procedure uses none."""
    if pen.procedure.blank is None or pen.dossier.blank is not None:
        return pen.dossier.blank
    serial = pen.moment.take_blank(pen.procedure.blank)
    if serial is None:
        raise Refused("no-blank", "Hết phôi, chưa phát hành được.", "There is no blank in stock.", conflict=True)
    return serial


def hand_over(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    if pen.dossier.state != state.RESOLVED:
        _resolve(pen)
    _finish(pen, task, completion.outcome)
    _return(pen)


def hand_over_at_once(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    """Same visit: signed, resolved and returned in one act."""
    signature = signing.read_signature(pen.dossier, pen.procedure, completion.fields, completion.holder)
    entry = signing.read_entry(pen.dossier, completion.fields)
    signing.sign(pen, signature)
    signing.enter(pen.dossier, entry)
    pen.close_task(task, completion.outcome)
    _resolve(pen)
    _return(pen)
    pen.notify(ResultReturned)


def refuse(pen: DecisionBuilder, task: Task, _: Completion) -> None:
    """A reasoned letter, inside the processing time (decree 61/2018 art. 19(8)); not the same as not accepting."""
    if pen.dossier.state == state.RESOLVED:
        raise Refused(
            "already-ended", "Hồ sơ đã giải quyết xong.", "The dossier has been decided already.", conflict=True
        )
    pen.drop_number()
    _finish(pen, task, "refuse")
    pen.close_all("refused")
    pen.dossier.state = state.REFUSED
    pen.tell(DossierRefused, status=pen.procedure.refusal_status, reason="refused")
    pen.notify(DossierRefused)
    pen.set_timer("number_hold", None)


def send_back(pen: DecisionBuilder, task: Task, _: Completion) -> None:
    """A step back, as leaders do every day."""
    if pen.dossier.step < 1:
        raise Refused(
            "no-step-before", "Không có bước trước để trả lại.", "There is no step before this one.", conflict=True
        )
    pen.close_task(task, "send_back")
    pen.dossier.step -= 1
    before = current_step(pen)
    assert before is not None
    if before.stage == "approval":
        signing.void_signature(pen.dossier)
    pen.tell(StepReturned, stage=task.stage, task_id=task.task_id, outcome="send_back", back_to=before.stage)
    open_step(pen)


def _resolve(pen: DecisionBuilder) -> None:
    """Decided: the result has a number, the dossier's own code where nobody gave it another."""
    result = pen.dossier.result or {}
    pen.dossier.result = {**result, "number": result.get("number") or pen.dossier.dossier_code}
    pen.dossier.state = state.RESOLVED
    pen.tell(DossierResolved, status=9)


def _return(pen: DecisionBuilder) -> None:
    without = pen.dossier.number_state in AWAITED
    pen.dossier.state = state.RETURNED
    pen.close_all("ended", but_number=without)
    pen.tell(ResultReturned, status=10, without_number=without)
    pen.set_timer("number_hold", None)
