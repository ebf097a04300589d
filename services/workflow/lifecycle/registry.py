"""Answers of the population registry: identification numbers and identity checks, early or late."""

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
"""Warnings with which a number is unusable until somebody has asked the registry. Others (year, sex) block nothing."""


def on_number_found(builder: DecisionBuilder, fact: IdNumberFound) -> None:
    """Publish the number. Before the return, end its hold. After it, open a task for the records clerk and notify.

    A misshapen number ends no hold until somebody has asked the registry. No new number is requested, because the
    registry has issued this one. After an end without a result (refused, withdrawn) a number is only published.
    """
    dossier = builder.dossier
    if fact.request_key != dossier.number_key or dossier.number_state in ("found", "misshapen"):
        return
    _close(builder, "awaited", "found")
    _close(builder, "number_doubtful", "found")
    if MISSHAPEN & set(fact.warnings) and (not dossier.ended or dossier.state == state.RETURNED):
        dossier.number_state = "misshapen"
        builder.open_task("id_number", "number_misshapen", "specialist", hours=REGISTRY_TASK_HOURS)
    else:
        _is_issued(builder)


def _is_issued(builder: DecisionBuilder) -> None:
    dossier = builder.dossier
    dossier.number_state = "found"
    builder.emit(IdNumberIssued)
    if dossier.state == state.RETURNED:
        builder.open_task("id_number", "number_late", "records_clerk", hours=REGISTRY_TASK_HOURS)
        builder.notify(IdNumberIssued)
    elif not dossier.ended:
        held = _close(builder, "number_held", "found")
        builder.set_timer("number_hold", None)
        if held or _is_held(builder):
            steps.open_step(builder)


def on_still_pending(builder: DecisionBuilder, fact: IdNumberStillPending) -> None:
    """Publish once that the registry is late."""
    dossier = builder.dossier
    if fact.request_key == dossier.number_key and dossier.number_state == "wanted" and not dossier.ended:
        dossier.number_state = "delayed"
        builder.emit(IdNumberDelayed, since=dossier.number_asked_office_at or builder.context.office)


def on_duplicate_suspected(builder: DecisionBuilder, fact: IdNumberDuplicateSuspected) -> None:
    """The registry suspects that this person already has a number: open a task for a specialist.

    The same request may still succeed. A new suspicion after the task was closed opens another task.
    """
    dossier = builder.dossier
    is_relevant = not dossier.ended or dossier.state == state.RETURNED
    awaited = dossier.number_state in ("wanted", "delayed", "duplicate")
    if fact.request_key != dossier.number_key or not awaited or not is_relevant:
        return
    dossier.number_state = "duplicate"
    if not any(task.kind == "number_doubtful" for task in dossier.tasks):
        builder.open_task("id_number", "number_doubtful", "specialist", hours=REGISTRY_TASK_HOURS)


def on_number_refused(builder: DecisionBuilder, fact: IdNumberRefused) -> None:
    """Record that the registry has rejected the request. Only now may a specialist make another one."""
    dossier = builder.dossier
    if fact.request_key != dossier.number_key or dossier.number_state not in state.AWAITED - {"misshapen"}:
        return
    _close(builder, "awaited", "refused")
    dossier.number_state = "refused"
    if not dossier.ended or dossier.state == state.RETURNED:
        _close(builder, "number_doubtful", "refused")
        builder.open_task("id_number", "number_doubtful", "specialist", hours=REGISTRY_TASK_HOURS)


def on_check_answered(builder: DecisionBuilder, fact: IdCheckAnswered) -> None:
    """Record the answer; any but a match opens a task for a specialist. Approval waits if the procedure says so."""
    dossier = builder.dossier
    if fact.request_key != dossier.check_key or dossier.check_state != "wanted":
        return
    _close(builder, "awaited", fact.answer, stage="identity_check")
    dossier.check_state = "match" if fact.answer == "match" else "mismatch"
    if dossier.ended:
        return
    if dossier.check_state == "mismatch":
        builder.open_task("identity_check", "identity_mismatch", "specialist", hours=REGISTRY_TASK_HOURS)
    _free_approval(builder)


def confirm_identity(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    builder.close_task(task, completion.outcome)
    builder.dossier.check_state = "confirmed"
    _free_approval(builder)


def return_without_number(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    """The signatory decides: return the result now; the number comes later."""
    builder.close_task(task, completion.outcome)
    builder.dossier.number_waived = True
    steps.open_step(builder)


def wait_for_number(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    """The signatory decides: hold the return until the same hour of the next working day."""
    builder.close_task(task, completion.outcome)
    builder.dossier.hold_until = builder.next_hold_time()
    builder.set_timer("number_hold", builder.dossier.hold_until)


def on_hold_over(builder: DecisionBuilder) -> None:
    """At the end of the hold: if the return still waits for the number, ask the signatory."""
    if not builder.dossier.ended and _is_held(builder):
        steps.open_step(builder)


def ask_again(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    if builder.dossier.number_state != "refused":
        raise Refused(
            "request-still-open",
            "Yêu cầu trước chưa bị từ chối nên chưa được gửi yêu cầu mới.",
            "The earlier request has not been rejected, so no new one may be made.",
            conflict=True,
        )
    builder.close_task(task, completion.outcome)
    builder.request_number()


def accept_misshapen(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    """A specialist has asked the registry: treat the number as any other number that was found."""
    builder.close_task(task, completion.outcome)
    _is_issued(builder)


def note(builder: DecisionBuilder, task: Task, completion: Completion) -> None:
    """Close a task that only asks a person to look; nothing else follows."""
    builder.close_task(task, completion.outcome)


def _is_held(builder: DecisionBuilder) -> bool:
    """Whether the return is the current step and has no task yet."""
    step = steps.current_step(builder)
    return (
        step is not None
        and step.stage == "return"
        and builder.dossier.state not in (state.SUPPLEMENT_REQUESTED, state.PAYMENT_REQUIRED)
        and not any(task.kind in ("return", "number_held") for task in builder.dossier.tasks)
    )


def _free_approval(builder: DecisionBuilder) -> None:
    step = steps.current_step(builder)
    at_approval = step is not None and step.stage == "approval"
    under_way = builder.dossier.state in (state.RECEIVED, state.IN_PROGRESS)
    if at_approval and under_way and builder.dossier.find_open_task("approval") is None:
        steps.open_step(builder)


def _close(builder: DecisionBuilder, kind: str, outcome: str, *, stage: str = "id_number") -> bool:
    tasks = [task for task in builder.dossier.tasks if task.kind == kind and task.stage == stage]
    for task in tasks:
        builder.close_task(task, outcome)
    return bool(tasks)
