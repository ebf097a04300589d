"""What idlookup's HTTP takes and answers."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.http.times import OfficeTime

RequestState = Literal[
    "waiting", "calling", "pending", "found", "matched", "mismatched", "duplicate", "refused", "stopped"
]
Decision = Literal["same_person", "new_person"]


class RequestRow(BaseModel):
    """One request to the registry. Never a name."""

    request_key: UUID
    dossier_id: UUID
    kind: Literal["issue", "verify"]
    state: RequestState
    wanted_at: OfficeTime
    asked_at: OfficeTime | None
    settled_at: OfficeTime | None
    attempts: int
    confirmed: bool
    """A person has said that this is somebody else than the one the registry suspects."""
    reason: str | None
    number: str | None = None
    """The last three digits; the others are stars."""


class RequestPage(BaseModel):
    items: list[RequestRow]
    next: str | None


class Resolution(BaseModel):
    """A person's answer to a suspected duplicate. `number`: the one this person has already, for `same_person`."""

    model_config = ConfigDict(extra="forbid")
    decision: Decision
    number: str | None = Field(default=None, pattern=r"^[0-9]{12}$")
    note: str = Field(min_length=3, max_length=1000)


class Resolved(BaseModel):
    request_key: UUID
    decision: Decision
