"""What an answer of the registry means for a request: its next state, when to ask again, what to publish. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.contract.events import (
    IdCheckAnswered,
    IdNumberDuplicateSuspected,
    IdNumberFound,
    IdNumberRefused,
    RequestResult,
)

MIN_POLL_S = 0.02
MAX_POLL_S = 300.0
MAX_POLL_OF_YOUNG_S = 5.0
"""A request younger than some minutes is asked about at least this often."""
MIN_BACKOFF_S = 0.2
MAX_BACKOFF_S = 15.0

SENT, LOST, UNREACHABLE = "sent", "lost", "unreachable"
"""Our own states beside the registry's: acknowledged; no answer came; the call cannot have arrived."""
PENDING, UNKNOWN, TECHNICAL, DUPLICATE = "pending", "unknown", "technical-error", "duplicate-suspected"
NO_LONGER_WANTED = "no-longer-wanted"
"""Why a request was stopped."""
FINAL = {
    "issue": {"issued": "found", "rejected": "refused", DUPLICATE: "duplicate"},
    "verify": {"match": "matched", "mismatch": "mismatched", "rejected": "refused", DUPLICATE: "refused"},
}
"""kind -> the registry's state -> the state in which the request ends. Any other state is a technical error."""


@dataclass(frozen=True, slots=True)
class Request:
    """One row, as a worker took it. The fields are columns."""

    request_key: UUID
    dossier_id: UUID
    kind: str
    sealed: str
    trace_id: UUID
    asked: bool
    """An earlier call may have reached the registry: ask by key before sending again."""
    to_send: bool
    """The registry has not acknowledged it, or it is to be sent again."""
    confirmed: bool
    """A specialist decided that this is not the person whom the registry suspects."""
    dropped: bool
    """No longer wanted."""
    tries: int
    lost: int
    """Calls in a row without a usable answer."""
    wanted_at: datetime
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class RegistryAnswer:
    """What is known after a call. `state` is the registry's or one of ours. `number` must never reach a log."""

    state: str
    number: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NextState:
    """What the row becomes. `pause_s`: wall seconds until the next call about it; None: the request has ended."""

    state: str
    pause_s: float | None = None
    asked: bool = True
    to_send: bool = False
    lost: int = 0
    number: str | None = None
    reason: str | None = None


def must_send(request: Request, known: RegistryAnswer | None) -> bool:
    """Whether to send it now, under its one key. `known`: the registry's answer by key; None: it was not asked."""
    if request.dropped:
        return False
    if known is None:
        return not request.asked
    repeatable = known.state == TECHNICAL or (known.state == DUPLICATE and request.confirmed)
    return known.state == UNKNOWN or (request.to_send and repeatable)


def state_after(
    request: Request, answer: RegistryAnswer, now: datetime, *, chance: float, forget_after_s: float
) -> NextState:
    """What becomes of a request. `chance` in 0..1 spreads the pauses; `forget_after_s` in wall seconds."""
    age_s = max((now - request.asked_at).total_seconds(), 0.0)
    poll_s, pause_s = poll_interval_s(age_s, chance), backoff_s(request.lost, chance)
    state = answer.state
    if state in FINAL[request.kind] and not (state == "issued" and not answer.number):
        if state == DUPLICATE and request.dropped:
            return NextState("stopped", reason=NO_LONGER_WANTED)
        return NextState(FINAL[request.kind][state], number=answer.number, reason=answer.reason or None)
    match state:
        case "sent" | "pending":
            return NextState("pending", poll_s)
        case "unknown" if request.dropped and age_s > forget_after_s:
            return NextState("stopped", reason=NO_LONGER_WANTED)
        case "unknown" if request.dropped:
            # The request may still be on its way, or the registry may know a key only once it has issued.
            return NextState("pending", max(poll_s, 1.0), to_send=True)
        case "unknown":
            return NextState("pending", poll_s, to_send=True)
        case "lost":
            return NextState("pending", pause_s, to_send=request.to_send, lost=request.lost + 1)
        case "unreachable":
            before = "pending" if request.asked else "waiting"
            return NextState(before, pause_s, asked=request.asked, to_send=request.to_send, lost=request.lost + 1)
        case "technical-error" if request.dropped:
            return NextState("stopped", reason=NO_LONGER_WANTED)
        case _:
            return NextState("pending", pause_s, to_send=True, lost=request.lost + 1)


def poll_interval_s(age_s: float, chance: float) -> float:
    """Wall seconds until the next question: a quarter of the request's age, within bounds that grow with the age."""
    longest_s = min(max(MAX_POLL_OF_YOUNG_S, age_s / 100), MAX_POLL_S)
    return min(max(MIN_POLL_S, age_s / 4), longest_s) * (0.8 + 0.4 * chance)


def backoff_s(lost: int, chance: float) -> float:
    """Wall seconds to wait after `lost` failures in a row: exponential, with jitter."""
    return float(min(MIN_BACKOFF_S * 2 ** min(lost, 10), MAX_BACKOFF_S)) * (0.5 + chance)


def result_of(
    request: Request, next_state: NextState, sealed_number: str | None, warnings: tuple[str, ...]
) -> RequestResult | None:
    """The event to publish when a request comes to this state; None for none."""
    key = request.request_key
    match next_state.state:
        case "found":
            return IdNumberFound(request_key=key, sealed_number=sealed_number or "", warnings=warnings)
        case "duplicate":
            return IdNumberDuplicateSuspected(request_key=key)
        case "refused" if request.kind == "issue":
            return IdNumberRefused(request_key=key, reason=next_state.reason or "rejected")
        case "matched" | "mismatched" | "refused":
            answers = {"matched": "match", "mismatched": "mismatch", "refused": "rejected"}
            return IdCheckAnswered(request_key=key, answer=answers[next_state.state])
    return None


def call_body(request: Request, opened: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent to the registry: the same on every call for the same request; only `confirmed` may be added.

    `opened` is the decrypted subject or person. The dossier's id goes with a subject, so that equal papers of two
    families are two subjects.
    """
    body: dict[str, Any] = {"key": str(request.request_key), "kind": request.kind}
    if request.kind == "verify":
        return body | {name: opened[name] for name in ("personal_id", "full_name", "birth_date") if name in opened}
    body["subject"] = {**opened, "reference": str(request.dossier_id)}
    if request.confirmed:
        body["confirmed"] = True
    return body
