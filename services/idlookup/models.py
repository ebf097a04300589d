"""The bodies and answers of idlookup's HTTP API."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from shared.http.models import HttpModel
from shared.http.times import VietnamTime

RequestState = Literal[
    "waiting", "calling", "pending", "found", "matched", "mismatched", "duplicate", "refused", "stopped"
]
Decision = Literal["same_person", "new_person"]


class RequestRow(HttpModel):
    """One request to the population registry. It never shows a name."""

    request_key: UUID
    """The id of the event that asked for it, and the key under which the registry knows it."""
    dossier_id: UUID
    kind: Literal["issue", "verify"]
    """`issue`: a new identification number. `verify`: a check of a person's identity."""
    state: RequestState
    """`waiting`: not sent yet. `calling`: a worker has it. `pending`: the registry has it, or may have it. `duplicate`:
    the registry suspects that this person has a number, and a specialist decides. The others are final: `found` (a
    number), `matched` and `mismatched` (checks), `refused` by the registry, `stopped` (no longer wanted)."""
    wanted_at: VietnamTime
    """When workflow recorded the request; wall time."""
    asked_at: VietnamTime | None
    """When a worker first took it; wall time. Null again after `new_person`, until the next call."""
    settled_at: VietnamTime | None
    """When it reached its present final state or `duplicate`; wall time."""
    attempts: int
    """How often a worker has taken it up."""
    confirmed: bool
    """A specialist decided that this is another person than the one the registry suspects."""
    reason: str | None
    """The registry's code for a refusal, or `no-longer-wanted`."""
    number: str | None = None
    """The number's last three digits behind stars; null without a number, or when it cannot be decrypted."""


class RequestPage(HttpModel):
    """Requests, oldest first."""

    items: list[RequestRow]
    next: str | None
    """The value of `after` for the next page; null on the last page."""


class Resolution(HttpModel):
    """A specialist's answer to a suspected duplicate."""

    model_config = ConfigDict(extra="forbid")
    decision: Decision
    """`same_person`: the person has a number already. `new_person`: it is somebody else, and the request is sent
    again under the same key, confirmed."""
    number: str | None = Field(default=None, pattern=r"^[0-9]{12}$")
    """The number that the person has: required with `same_person`, ignored with `new_person`."""
    note: str = Field(min_length=3, max_length=1000)
    """Why; kept with the request."""


class Resolved(HttpModel):
    """A decision that is stored."""

    request_key: UUID
    decision: Decision
