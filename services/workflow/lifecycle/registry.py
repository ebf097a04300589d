"""What the population registry answers: numbers and identity checks, early, late or never."""

from __future__ import annotations

from services.workflow.lifecycle import state, steps
from services.workflow.lifecycle.decision_builder import DecisionBuilder
from services.workflow.lifecycle.state import Completion, Task
from shared.contract.events import (
    IdCheckAnswered,
    IdNumberDelayed,
    IdNumberDuplicateSuspected,
    IdNumberFound,
    IdNumberIssued,
    IdNumberRefused,
    IdNumberStillPending,
)
from shared.refusals import Refused

REGISTRY_TASK_HOURS = 4.0
MISSHAPEN = frozenset({"length", "not-digits"})
"""Warnings with which a number is none: nobody may enter it as it is. Others (year, sex) are only looked at."""


def on_number_found(pen: DecisionBuilder, fact: IdNumberFound) -> None:
    """Early: the return is free. Late: a task for the records clerk, and the citizen is told; no status changes.

    A misshapen one frees nothing until somebody has asked the registry; it may not be asked for again, for the registry
    has issued it. After an end that nobody waits behind it is told as it came.
    """
    dossier = pen.dossier
    if fact.request_key != dossier.number_key or dossier.number_state in ("found", "misshapen"):
        return
    _close(pen, "awaited", "found")
    _close(pen, "number_doubtful", "found")
    if MISSHAPEN & set(fact.warnings) and (not dossier.ended or dossier.state == state.RETURNED):
        dossier.number_state = "misshapen"
        pen.open_task("id_number", "number_misshapen", "specialist", hours=REGISTRY_TASK_HOURS)
    else:
        _is_issued(pen)


def _is_issued(pen: DecisionBuilder) -> None:
    dossier = pen.dossier
    dossier.number_state = "found"
    pen.tell(IdNumberIssued)
    if dossier.state == state.RETURNED:
        pen.open_task("id_number", "number_late", "records_clerk", hours=REGISTRY_TASK_HOURS)
        pen.notify(IdNumberIssued)
    elif not dossier.ended:
        held = _close(pen, "number_held", "found")
        pen.set_timer("number_hold", None)
        if held or _is_held(pen):
            steps.open_step(pen)


def on_still_pending(pen: DecisionBuilder, fact: IdNumberStillPending) -> None:
    """Said once: the registry is late."""
    dossier = pen.dossier
    if fact.request_key == dossier.number_key and dossier.number_state == "wanted" and not dossier.ended:
        dossier.number_state = "delayed"
        pen.tell(IdNumberDelayed, since=dossier.number_asked_at or pen.moment.office)


def on_duplicate_suspected(pen: DecisionBuilder, fact: IdNumberDuplicateSuspected) -> None:
    """The registry thinks this person has a number: somebody has to look. The same request may still succeed.

    It may be suspected again after somebody has looked: then somebody has to look again.
    """
    dossier = pen.dossier
    still_cared_for = not dossier.ended or dossier.state == state.RETURNED
    awaited = dossier.number_state in ("wanted", "delayed", "duplicate")
    if fact.request_key != dossier.number_key or not awaited or not still_cared_for:
        return
    dossier.number_state = "duplicate"
    if not any(task.kind == "number_doubtful" for task in dossier.tasks):
        pen.open_task("id_number", "number_doubtful", "specialist", hours=REGISTRY_TASK_HOURS)


def on_number_refused(pen: DecisionBuilder, fact: IdNumberRefused) -> None:
    """The registry will not answer this request any more: only now may another be made."""
    dossier = pen.dossier
    if fact.request_key != dossier.number_key or dossier.number_state not in state.AWAITED - {"misshapen"}:
        return
    _close(pen, "awaited", "refused")
    dossier.number_state = "refused"
    if not dossier.ended or dossier.state == state.RETURNED:
        _close(pen, "number_doubtful", "refused")
        pen.open_task("id_number", "number_doubtful", "specialist", hours=REGISTRY_TASK_HOURS)


def on_check_answered(pen: DecisionBuilder, fact: IdCheckAnswered) -> None:
    """A match is noted; anything else is a specialist's to look at. It blocks approval only where told to."""
    dossier = pen.dossier
    if fact.request_key != dossier.check_key or dossier.check_state != "wanted":
        return
    _close(pen, "awaited", fact.answer, stage="identity_check")
    dossier.check_state = "match" if fact.answer == "match" else "mismatch"
    if dossier.ended:
        return
    if dossier.check_state == "mismatch":
        pen.open_task("identity_check", "identity_mismatch", "specialist", hours=REGISTRY_TASK_HOURS)
    _free_approval(pen)


def confirm_identity(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    pen.close_task(task, completion.outcome)
    pen.dossier.check_state = "confirmed"
    _free_approval(pen)


def return_without_number(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    """The signatory's decision at the set hour: return the result now, the number comes later."""
    pen.close_task(task, completion.outcome)
    pen.dossier.number_waived = True
    steps.open_step(pen)


def wait_for_number(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    """The signatory's decision at the set hour: hold the return until the same hour of the next working day."""
    pen.close_task(task, completion.outcome)
    pen.dossier.hold_until = pen.next_hold_time()
    pen.set_timer("number_hold", pen.dossier.hold_until)


def on_hold_over(pen: DecisionBuilder) -> None:
    """The set hour has come: ask the signatory, if the return is what waits."""
    if not pen.dossier.ended and _is_held(pen):
        steps.open_step(pen)


def ask_again(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    if pen.dossier.number_state != "refused":
        raise Refused(
            "request-still-open",
            "Yêu cầu trước chưa bị từ chối nên chưa được gửi yêu cầu mới.",
            "The earlier request has not been rejected, so no new one may be made.",
            conflict=True,
        )
    pen.close_task(task, completion.outcome)
    pen.ask_number()


def accept_misshapen(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    """The registry has said which number it is: from now on it is a number like any other."""
    pen.close_task(task, completion.outcome)
    _is_issued(pen)


def note(pen: DecisionBuilder, task: Task, completion: Completion) -> None:
    """Somebody has looked at it; nothing else follows."""
    pen.close_task(task, completion.outcome)


def _is_held(pen: DecisionBuilder) -> bool:
    """Whether the flow stands at the return with no task for it."""
    step = steps.current_step(pen)
    return (
        step is not None
        and step.stage == "return"
        and pen.dossier.state not in (state.SUPPLEMENT_REQUESTED, state.PAYMENT_REQUIRED)
        and not any(task.kind in ("return", "number_held") for task in pen.dossier.tasks)
    )


def _free_approval(pen: DecisionBuilder) -> None:
    step = steps.current_step(pen)
    at_approval = step is not None and step.stage == "approval"
    under_way = pen.dossier.state in (state.RECEIVED, state.IN_PROGRESS)
    if at_approval and under_way and pen.dossier.standing_in("approval") is None:
        steps.open_step(pen)


def _close(pen: DecisionBuilder, kind: str, outcome: str, *, stage: str = "id_number") -> bool:
    found = [task for task in pen.dossier.tasks if task.kind == kind and task.stage == stage]
    for task in found:
        pen.close_task(task, outcome)
    return bool(found)
