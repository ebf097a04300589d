"""What an answer of the registry means for a request: its next state, when to look again, what to tell. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared.events import (
    Fact,
    IdCheckAnswered,
    IdNumberDuplicateSuspected,
    IdNumberFound,
    IdNumberRefused,
    IdNumberStillPending,
)

FIRST_LOOK_S = 0.02
LAST_LOOK_S = 5.0
FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 15.0


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
    confirmed: bool
    dropped: bool
    told_pending: bool
    tries: int
    lost: int
    wanted_at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known after a call. `state`: the registry's word, or `sent`, `lost`, `unreachable`."""

    state: str
    number: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Next:
    """What the row becomes, and what is told. `pause_s` until the next look; None: none."""

    state: str
    asked: bool
    lost: int
    pause_s: float | None
    number: str | None = None
    reason: str | None = None
    tells: Callable[[str | None, tuple[str, ...]], Fact] | None = None
    """Makes the fact from the sealed number and the warnings."""


def after(request: Request, answer: Answer, now: datetime, chance: random.Random) -> Next:
    """The registry's word (or its silence) about one request. An unknown word counts as a technical error."""
    match answer.state:
        case "issued" | "match" | "mismatch" | "rejected" | "duplicate-suspected":
            return _final(request, answer)
        case "pending" | "sent":
            age = max((now - request.wanted_at).total_seconds(), 0.0)
            look = min(max(FIRST_LOOK_S, age / 4), LAST_LOOK_S) * chance.uniform(0.8, 1.2)
            return Next("pending", asked=True, lost=0, pause_s=look)
        case "unknown" if request.dropped:
            return Next("stopped", asked=True, lost=0, pause_s=None)
        case "unknown":
            return Next("waiting", asked=False, lost=0, pause_s=0.0)
        case "lost":
            return Next("waiting", asked=True, lost=request.lost + 1, pause_s=pause(request.lost, chance))
        case "unreachable":
            # Refused before anything could be stored there: what was not asked before has not been asked now.
            return Next("waiting", asked=request.asked, lost=request.lost + 1, pause_s=pause(request.lost, chance))
        case _:
            if request.dropped:
                return Next("stopped", asked=True, lost=0, pause_s=None)
            return Next("waiting", asked=False, lost=request.lost + 1, pause_s=pause(request.lost, chance))


def _final(request: Request, answer: Answer) -> Next:
    key = request.request_key
    if answer.state == "issued":
        number = answer.number
        return Next(
            "found", asked=True, lost=0, pause_s=None, number=number,
            tells=lambda sealed, odd: IdNumberFound(request_key=key, sealed_number=sealed or "", warnings=odd),
        )  # fmt: skip
    if request.kind == "verify":
        said = {"match": "match", "mismatch": "mismatch"}.get(answer.state, "rejected")
        state = {"match": "matched", "mismatch": "mismatched", "rejected": "refused"}[said]
        return Next(
            state, asked=True, lost=0, pause_s=None, reason=answer.reason or None,
            tells=lambda _, __: IdCheckAnswered(request_key=key, answer=said),
        )  # fmt: skip
    if answer.state == "duplicate-suspected":
        return Next(
            "duplicate", asked=True, lost=0, pause_s=None,
            tells=lambda _, __: IdNumberDuplicateSuspected(request_key=key),
        )  # fmt: skip
    reason = answer.reason or answer.state
    return Next(
        "refused", asked=True, lost=0, pause_s=None, reason=reason,
        tells=lambda _, __: IdNumberRefused(request_key=key, reason=reason),
    )  # fmt: skip


def still_pending(request: Request, made: Next, now: datetime, after_s: float) -> Fact | None:
    """The one report that a number is late; `after_s` in wall seconds."""
    late = now - request.wanted_at > timedelta(seconds=after_s)
    if request.kind != "issue" or made.pause_s is None or request.told_pending or request.dropped or not late:
        return None
    return IdNumberStillPending(request_key=request.request_key, since=request.wanted_at)


def pause(lost: int, chance: random.Random) -> float:
    """Back-off with jitter, in wall seconds."""
    return float(min(FIRST_PAUSE_S * 2 ** min(lost, 10), LAST_PAUSE_S) * chance.uniform(0.5, 1.5))


def call_body(request: Request, opened: dict[str, Any]) -> dict[str, Any]:
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
