"""What an answer of the registry means for a request: its next state, when to look again, what to tell. Pure."""

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

FIRST_LOOK_S = 0.02
LAST_LOOK_S = 5.0
"""A request younger than some minutes is asked after at least this often."""
RAREST_LOOK_S = 300.0
FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 15.0

SENT, LOST, UNREACHABLE = "sent", "lost", "unreachable"
"""Our own words beside the registry's: acknowledged; no answer came; the call cannot have arrived."""
PENDING, UNKNOWN, TECHNICAL, DUPLICATE = "pending", "unknown", "technical-error", "duplicate-suspected"
NO_LONGER_WANTED = "no-longer-wanted"
"""Why a request was stopped."""
FINAL = {
    "issue": {"issued": "found", "rejected": "refused", DUPLICATE: "duplicate"},
    "verify": {"match": "matched", "mismatch": "mismatched", "rejected": "refused", DUPLICATE: "refused"},
}
"""kind -> the registry's word -> the state it ends in. Any word that is in no list counts as a technical error."""


@dataclass(frozen=True, slots=True)
class Request:
    """One row, as taken up by a caller."""

    request_key: UUID
    dossier_id: UUID
    kind: str
    sealed: str
    trace_id: UUID
    asked: bool
    """A call may have reached the registry before: ask by key, never anew at once."""
    to_send: bool
    """The registry has not acknowledged it, or is to be sent it again."""
    confirmed: bool
    dropped: bool
    """Nobody waits for it any more."""
    tries: int
    lost: int
    wanted_at: datetime
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class RegistryAnswer:
    """What is known after a call: the registry's word, or one of ours. Its text must never reach a log."""

    state: str
    number: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Next:
    """What the row becomes. `pause_s`: wall seconds until it is looked at again; None: never."""

    state: str
    pause_s: float | None = None
    asked: bool = True
    to_send: bool = False
    lost: int = 0
    number: str | None = None
    reason: str | None = None


def must_send(request: Request, known: RegistryAnswer | None) -> bool:
    """Whether it goes out now, with the same key as always. `known`: what the registry said when asked by key."""
    if request.dropped:
        return False
    if known is None:
        return not request.asked
    again = known.state == TECHNICAL or (known.state == DUPLICATE and request.confirmed)
    return known.state == UNKNOWN or (request.to_send and again)


def after(request: Request, answer: RegistryAnswer, now: datetime, *, chance: float, forget_after_s: float) -> Next:
    """What becomes of a request. `chance` in 0..1 spreads the pauses; times in wall seconds."""
    age_s = max((now - request.asked_at).total_seconds(), 0.0)
    look_s, rest_s = look_again_in(age_s, chance), pause_in(request.lost, chance)
    state = answer.state
    if state in FINAL[request.kind] and not (state == "issued" and not answer.number):
        if state == DUPLICATE and request.dropped:
            return Next("stopped", reason=NO_LONGER_WANTED)
        return Next(FINAL[request.kind][state], number=answer.number, reason=answer.reason or None)
    match state:
        case "sent" | "pending":
            return Next("pending", look_s)
        case "unknown" if request.dropped and age_s > forget_after_s:
            return Next("stopped", reason=NO_LONGER_WANTED)
        case "unknown" if request.dropped:
            # What was sent may still be on its way, or the registry may know a key only once it has issued.
            return Next("pending", max(look_s, 1.0), to_send=True)
        case "unknown":
            return Next("pending", look_s, to_send=True)
        case "lost":
            return Next("pending", rest_s, to_send=request.to_send, lost=request.lost + 1)
        case "unreachable":
            before = "pending" if request.asked else "waiting"
            return Next(before, rest_s, asked=request.asked, to_send=request.to_send, lost=request.lost + 1)
        case "technical-error" if request.dropped:
            return Next("stopped", reason=NO_LONGER_WANTED)
        case _:
            return Next("pending", rest_s, to_send=True, lost=request.lost + 1)


def look_again_in(age_s: float, chance: float) -> float:
    """A quarter of the age: a quick registry is answered quickly, a slow one is asked every few seconds or minutes."""
    most = min(max(LAST_LOOK_S, age_s / 100), RAREST_LOOK_S)
    return min(max(FIRST_LOOK_S, age_s / 4), most) * (0.8 + 0.4 * chance)


def pause_in(lost: int, chance: float) -> float:
    """Back-off with jitter after `lost` failures in a row."""
    return float(min(FIRST_PAUSE_S * 2 ** min(lost, 10), LAST_PAUSE_S)) * (0.5 + chance)


def fact_of(request: Request, made: Next, sealed_number: str | None, warnings: tuple[str, ...]) -> RequestResult | None:
    """What is told of a row that has come to this state; None when nothing is."""
    key = request.request_key
    match made.state:
        case "found":
            return IdNumberFound(request_key=key, sealed_number=sealed_number or "", warnings=warnings)
        case "duplicate":
            return IdNumberDuplicateSuspected(request_key=key)
        case "refused" if request.kind == "issue":
            return IdNumberRefused(request_key=key, reason=made.reason or "rejected")
        case "matched" | "mismatched" | "refused":
            said = {"matched": "match", "mismatched": "mismatch", "refused": "rejected"}
            return IdCheckAnswered(request_key=key, answer=said[made.state])
    return None


def call_body(request: Request, opened: Mapping[str, Any]) -> dict[str, Any]:
    """What the registry is sent: the same for the same request, every time; only `confirmed` may be added.

    The dossier's id goes with the subject, so that two families' equal papers are two subjects.
    """
    body: dict[str, Any] = {"key": str(request.request_key), "kind": request.kind}
    if request.kind == "verify":
        return body | {name: opened[name] for name in ("personal_id", "full_name", "birth_date") if name in opened}
    body["subject"] = {**opened, "reference": str(request.dossier_id)}
    if request.confirmed:
        body["confirmed"] = True
    return body
