"""The lifecycle of a dossier: every rule that decides about a dossier. Pure.

| what happens | what decides |
|---|---|
| a fact of intake (submitted, supplement, withdrawal) | `reception` |
| a fact of idlookup (number, identity check) | `registry` |
| an officer starts or completes a task | `start`; `complete`, by the table `COMPLETIONS` |
| an officer sets the result | `signing.set_result` |
| the end of the time for which a missing number holds the return | `registry.on_hold_over` |
| a procedure is opened for reception | `reception.on_opened` |

| legal rule | source | where |
|---|---|---|
| answer to an online submission within 8 working hours | decree 45/2020 | `reception.RECEPTION_HOURS` |
| due date, day 0, the cut-off at 15:00 | Civil Code arts 147, 148; Civil Status Law art. 5(3) | `clock.deadlines` |
| supplement: once, complete, in writing | decree 61/2018 arts 15(3), 17 | `reception.ask_supplement` |
| the time counts again from the start | decree 61/2018 art. 19(4) | `reception.on_supplement` |
| refusal within the processing time | decree 61/2018 art. 19(8) | `steps.refuse` |
| waiting for a number does not stop the clock | decree 61/2018 art. 19(5) | `steps.number_holds` |
| capacities and kinds of signature | | `signing` |
| what a province may set (times, fees, four eyes) | | `procedures` |

A decision changes the given `Dossier` and returns what follows from it (`Decision`). The caller stores both in one
transaction, or neither. The rules read no clock, no database and no random number: a `DecisionContext` has all of
these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.workflow.lifecycle import reception, registry, signing, steps
from services.workflow.lifecycle.decision_builder import DecisionBuilder
from services.workflow.lifecycle.outcomes import OUTCOMES, Outcome, find_outcome
from services.workflow.lifecycle.state import (
    ENDED,
    STATES,
    Completion,
    Decision,
    DecisionContext,
    Dossier,
    EmittedEvent,
    Task,
)
from services.workflow.procedures import Procedure
from shared.contract import events
from shared.contract.events import Fact
from shared.refusals import Refused

__all__ = [
    "COMPLETIONS",
    "ENDED",
    "OUTCOMES",
    "STATES",
    "Completion",
    "Decision",
    "DecisionContext",
    "Dossier",
    "EmittedEvent",
    "Outcome",
    "Task",
    "begin",
    "complete",
    "decide",
    "hold_over",
    "opened",
    "set_result",
    "stale_version",
    "start",
    "submitted",
]  # fmt: skip

begin = reception.begin
set_result = signing.set_result

FACTS: dict[type[Fact], Callable[[DecisionBuilder, Any], None]] = {
    events.ComponentStored: reception.on_component_stored,
    events.SupplementSubmitted: reception.on_supplement,
    events.WithdrawalRequested: reception.on_withdrawal,
    events.IdNumberFound: registry.on_number_found,
    events.IdNumberStillPending: registry.on_still_pending,
    events.IdNumberDuplicateSuspected: registry.on_duplicate_suspected,
    events.IdNumberRefused: registry.on_number_refused,
    events.IdCheckAnswered: registry.on_check_answered,
}

COMPLETIONS: dict[tuple[str, str], Callable[[DecisionBuilder, Task, Completion], None]] = {
    ("reception", "accept"): reception.accept,
    ("reception", "ask_supplement"): reception.ask_supplement,
    ("reception", "not_accepted"): reception.not_accept,
    ("same_visit", "hand_over"): steps.hand_over_at_once,
    ("same_visit", "refuse"): steps.refuse,
    ("appraisal", "agree"): steps.agree,
    ("appraisal", "ask_supplement"): reception.ask_supplement,
    ("appraisal", "refuse"): steps.refuse,
    ("financial_obligation", "paid"): steps.take_payment,
    ("financial_obligation", "refuse"): steps.refuse,
    ("consultation", "answered"): steps.take_opinion,
    ("consultation", "send_back"): steps.send_back,
    ("consultation", "refuse"): steps.refuse,
    ("approval", "sign"): steps.sign,
    ("approval", "send_back"): steps.send_back,
    ("approval", "refuse"): steps.refuse,
    ("issuing", "issue"): steps.issue,
    ("issuing", "send_back"): steps.send_back,
    ("return", "hand_over"): steps.hand_over,
    ("identity_mismatch", "confirmed"): registry.confirm_identity,
    ("identity_mismatch", "refuse"): steps.refuse,
    ("number_held", "return_without_number"): registry.return_without_number,
    ("number_held", "wait"): registry.wait_for_number,
    ("number_doubtful", "noted"): registry.note,
    ("number_doubtful", "ask_again"): registry.ask_again,
    ("number_misshapen", "checked"): registry.accept_misshapen,
    ("number_late", "entered"): registry.note,
    ("number_late", "entered_reissued"): registry.note,
}
"""(kind of task, outcome) -> the rule for it; `outcomes.OUTCOMES` has their labels."""


def submitted(
    dossier: Dossier,
    procedure: Procedure,
    fact: events.DossierSubmitted,
    context: DecisionContext,
    *,
    open_for_reception: bool,
) -> Decision:
    """The first decision about a dossier, after `begin`."""
    builder = DecisionBuilder(dossier, procedure, context)
    reception.on_submitted(builder, fact, open_for_reception=open_for_reception)
    return builder.decision


def decide(dossier: Dossier, procedure: Procedure, fact: Fact, context: DecisionContext) -> Decision:
    """Decide what follows from a fact of intake or idlookup. Raises KeyError for any other fact."""
    builder = DecisionBuilder(dossier, procedure, context)
    FACTS[type(fact)](builder, fact)
    return builder.decision


def opened(dossier: Dossier, procedure: Procedure, context: DecisionContext) -> Decision:
    """Decide about a recorded dossier after its procedure was opened."""
    builder = DecisionBuilder(dossier, procedure, context)
    reception.on_opened(builder)
    return builder.decision


def hold_over(dossier: Dossier, procedure: Procedure, context: DecisionContext) -> Decision:
    """Decide at the end of the time for which a missing number holds the return."""
    builder = DecisionBuilder(dossier, procedure, context)
    registry.on_hold_over(builder)
    return builder.decision


def start(dossier: Dossier, task: Task, context: DecisionContext, *, version: int, holder: str) -> Decision:
    """Start a task: from now on `holder` works on it. Raises Refused; then nothing has changed."""
    _check_task(task, version)
    if task.state == "started" and task.holder != holder:
        raise Refused(
            "held-by-another", "Việc này đã có người nhận.", "Somebody else has started this task.", conflict=True
        )
    task.state, task.holder = "started", holder
    task.started_at, task.started_office_at = context.wall, context.office
    task.version += 1
    return Decision(tasks={task.task_id: task})


def complete(
    dossier: Dossier, procedure: Procedure, task: Task, context: DecisionContext, completion: Completion
) -> Decision:
    """Complete a task with one of its outcomes. Raises Refused; then nothing has changed.

    Every rule in `COMPLETIONS` raises before its first change. It takes what it uses up (a blank) last.
    """
    _check_task(task, completion.version)
    _check_outcome(task, completion)
    builder = DecisionBuilder(dossier, procedure, context)
    COMPLETIONS[task.kind, completion.outcome](builder, task, completion)
    task.completed_by = completion.holder
    builder.add_note(task, completion)
    return builder.decision


def _check_task(task: Task, version: int) -> None:
    if task.role is None:
        raise Refused("machine-task", "Khâu này do hệ thống chờ, không xử lý tay.", "This task waits for a machine.")
    if task.version != version:
        raise stale_version()


def _check_outcome(task: Task, completion: Completion) -> None:
    outcome = find_outcome(task.kind, completion.outcome)
    if outcome is None:
        raise Refused("unknown-outcome", "Không có kết quả xử lý này.", "The task has no such outcome.")
    if outcome.note_required and not (completion.note or "").strip():
        raise Refused("note-required", "Cần ghi lý do.", "A note is needed.")
    if completion.fields.keys() - set(outcome.fields):
        raise Refused(
            "unknown-field", "Có trường không dùng cho kết quả này.", "A field does not belong to this outcome."
        )


def stale_version() -> Refused:
    return Refused(
        "stale-version",
        "Việc này vừa có người cập nhật.",
        "Somebody else has just updated this task: the version is stale.",
        conflict=True,
    )
