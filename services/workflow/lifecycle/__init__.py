"""The life of a dossier, decided in one place for events, officers' commands and timers. Pure.

| told | by | decides |
|---|---|---|
| a fact of intake | `reception` | recorded, received, supplement, withdrawal |
| a fact of idlookup | `registry` | number found, late, doubtful; identity matched or not |
| an officer's command | `complete`, `start`, `set_result` | steps, signature, blanks, the signatory's choice |
| a timer | `on_hold_over` | the number did not come by the set hour |
| a procedure opened | `reception.on_opened` | the recorded queue is received |

A decision changes the `Dossier` it is given and says what follows (`Decision`); whoever asked stores both together, or
neither. It looks at no clock, no database and no dice: everything it may use comes in a `DecisionContext`.
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
    """The first decision about a dossier: `begin` made it."""
    builder = DecisionBuilder(dossier, procedure, context)
    reception.on_submitted(builder, fact, open_for_reception=open_for_reception)
    return builder.decision


def decide(dossier: Dossier, procedure: Procedure, fact: Fact, context: DecisionContext) -> Decision:
    """What a fact from intake or idlookup means for a known dossier. KeyError for a fact that is not decided here."""
    builder = DecisionBuilder(dossier, procedure, context)
    FACTS[type(fact)](builder, fact)
    return builder.decision


def opened(dossier: Dossier, procedure: Procedure, context: DecisionContext) -> Decision:
    builder = DecisionBuilder(dossier, procedure, context)
    reception.on_opened(builder)
    return builder.decision


def hold_over(dossier: Dossier, procedure: Procedure, context: DecisionContext) -> Decision:
    builder = DecisionBuilder(dossier, procedure, context)
    registry.on_hold_over(builder)
    return builder.decision


def start(dossier: Dossier, task: Task, context: DecisionContext, *, version: int, holder: str) -> Decision:
    """An officer takes a task up: it has a holder from now on. Raises Refused; then nothing has changed."""
    _check_task(task, version)
    if task.state == "started" and task.holder != holder:
        raise Refused(
            "held-by-another", "Việc này đã có người nhận.", "Somebody else has taken this up.", conflict=True
        )
    task.state, task.holder = "started", holder
    task.started_at, task.started_office_at = context.wall, context.office
    task.version += 1
    return Decision(tasks={task.task_id: task})


def complete(
    dossier: Dossier, procedure: Procedure, task: Task, context: DecisionContext, completion: Completion
) -> Decision:
    """An officer ends a task with one of its outcomes. Raises Refused; then nothing has changed.

    Every rule in `COMPLETIONS` raises before its first change; what it uses up (a blank) it takes last.
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
        raise Refused("machine-task", "Khâu này do hệ thống chờ, không xử lý tay.", "A machine is awaited here.")
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
        "stale-version", "Việc này vừa có người cập nhật.", "Somebody was faster: the version is stale.", conflict=True
    )
