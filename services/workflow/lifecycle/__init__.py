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

from services.workflow.lifecycle import reception, registry, steps
from services.workflow.lifecycle.decision_builder import DecisionBuilder
from services.workflow.lifecycle.outcomes import OUTCOMES, Outcome, find_outcome
from services.workflow.lifecycle.state import (
    ENDED,
    RETURNED,
    STATES,
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
    "ENDED",
    "OUTCOMES",
    "STATES",
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


def submitted(
    dossier: Dossier,
    procedure: Procedure,
    fact: events.DossierSubmitted,
    moment: DecisionContext,
    *,
    open_for_reception: bool,
) -> Decision:
    """The first decision about a dossier: `begin` made it."""
    pen = DecisionBuilder(dossier, procedure, moment)
    reception.on_submitted(pen, fact, open_for_reception=open_for_reception)
    return pen.made


def decide(dossier: Dossier, procedure: Procedure, fact: Fact, moment: DecisionContext) -> Decision:
    """What a fact from intake or idlookup means for a known dossier. KeyError for a fact that is not decided here."""
    pen = DecisionBuilder(dossier, procedure, moment)
    FACTS[type(fact)](pen, fact)
    return pen.made


def opened(dossier: Dossier, procedure: Procedure, moment: DecisionContext) -> Decision:
    pen = DecisionBuilder(dossier, procedure, moment)
    reception.on_opened(pen)
    return pen.made


def hold_over(dossier: Dossier, procedure: Procedure, moment: DecisionContext) -> Decision:
    pen = DecisionBuilder(dossier, procedure, moment)
    registry.on_hold_over(pen)
    return pen.made


def start(
    dossier: Dossier, procedure: Procedure, task: Task, moment: DecisionContext, *, version: int, holder: str
) -> Decision:
    """Somebody takes a task up. Raises Refused."""
    pen = DecisionBuilder(dossier, procedure, moment)
    _check(task, version)
    if task.state == "started" and task.holder != holder:
        raise Refused(
            "held-by-another", "Việc này đã có người nhận.", "Somebody else has taken this up.", conflict=True
        )
    task.state, task.holder = "started", holder
    task.started_at, task.started_office_at = moment.wall, moment.office
    pen.change_task(task)
    return pen.made


def complete(
    dossier: Dossier,
    procedure: Procedure,
    task: Task,
    moment: DecisionContext,
    *,
    outcome: str,
    version: int,
    holder: str,
    note: str | None = None,
    fields: dict[str, Any] | None = None,
    open_for_reception: bool = True,
) -> Decision:
    """A task ends with one of its outcomes. Raises Refused; then nothing has changed."""
    _check(task, version)
    chosen = find_outcome(task.kind, outcome)
    if chosen is None:
        raise Refused("unknown-outcome", "Không có kết quả xử lý này.", "The task has no such outcome.")
    if chosen.note_required and not (note or "").strip():
        raise Refused("note-required", "Cần ghi lý do.", "A note is needed.")
    unknown = set(fields or {}) - set(chosen.fields)
    if unknown:
        raise Refused(
            "unknown-field", "Có trường không dùng cho kết quả này.", "A field does not belong to this outcome."
        )
    pen = DecisionBuilder(dossier, procedure, moment)
    said = fields or {}
    match task.kind, outcome:
        case "reception", "accept" if not open_for_reception:
            raise Refused(
                "procedure-record-only",
                "Thủ tục đang chỉ ghi nhận, chưa tiếp nhận hồ sơ.",
                "The procedure records submissions and receives none now.",
                conflict=True,
            )
        case "reception", "accept":
            pen.close_task(task, outcome)
            reception.receive(pen, moment.office)
        case "reception", "not_accepted":
            pen.close_task(task, outcome)
            reception.not_accept(pen)
        case "reception" | "appraisal", "ask_supplement":
            reception.ask_supplement(pen, task, outcome, said.get("components"))
        case "identity_mismatch", "confirmed":
            registry.confirm_identity(pen, task, outcome)
        case "number_held", _:
            registry.decide_hold(pen, task, outcome)
        case "number_doubtful", _:
            registry.take_up_doubt(pen, task, outcome)
        case "number_misshapen", _:
            registry.take_up_misshapen(pen, task, outcome)
        case "number_late", _:
            registry.settle_late_number(pen, task, outcome)
        case _:
            steps.complete(pen, task, outcome, said, holder)
    task.completed_by = holder
    pen.write_note(task, outcome, holder, note)
    return pen.made


def set_result(dossier: Dossier, procedure: Procedure, result: dict[str, Any]) -> None:
    """The result as an object: number, book, signer and capacity, kind of signature. Raises Refused.

    What was signed stays as it was signed. Only the scan of a paper signed by hand may come later, even after the paper
    was handed over.
    """
    if dossier.received_at is None:
        raise Refused("not-received", "Hồ sơ chưa được tiếp nhận.", "The dossier has not been received.", conflict=True)
    before = dossier.result or {}
    after = {**before, **result}
    different = {name for name in after if after[name] != before.get(name)}
    hands = (before.get("signature"), after.get("signature"))
    is_scan = hands == ("wet", "wet_scanned") and different == {"signature", "sha256"}
    if dossier.ended and different and not (is_scan and dossier.state == RETURNED):
        raise Refused("already-ended", "Hồ sơ đã kết thúc.", "The dossier has come to its end.", conflict=True)
    replaced = {name for name in different if before.get(name) is not None and name != "book"}
    if replaced and not is_scan and steps.is_signed(dossier, procedure):
        raise Refused(
            "already-signed",
            "Kết quả đã ký, không sửa được; chỉ được bổ sung bản quét của bản ký tay (wet_scanned, sha256).",
            "The result is signed; only the scan of a wet signature may be added (wet_scanned, sha256).",
            conflict=True,
        )
    dossier.result = after


def _check(task: Task, version: int) -> None:
    if task.role is None:
        raise Refused("machine-task", "Khâu này do hệ thống chờ, không xử lý tay.", "A machine is awaited here.")
    if task.version != version:
        raise stale_version()


def stale_version() -> Refused:
    return Refused(
        "stale-version", "Việc này vừa có người cập nhật.", "Somebody was faster: the version is stale.", conflict=True
    )
