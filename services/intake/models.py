"""What intake's HTTP answers. What it takes is in `shared.submission`."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from shared.http.times import OfficeTime


class Accepted(BaseModel):
    """A submission that is stored. It takes effect once, whatever dies afterwards."""

    dossier_id: UUID
    tracking_secret: str
    """Derived from the dossier's id; never stored. With it the citizen tracks the dossier without a token."""
    status: Literal["submitted"]
    """Always this: workflow alone decides a dossier's status."""
    procedure_code: str
    procedure_version: int
    submitted_at: OfficeTime


class ComponentRow(BaseModel):
    code: str
    kind: Literal["original", "copy", "electronic"]
    digitised: bool
    sha256: str | None


class SubmissionView(BaseModel):
    """The submission as accepted, without persons."""

    dossier_id: UUID
    procedure_code: str
    procedure_version: int
    receiving_agency: str
    channel: Literal["direct", "online", "post"]
    submitted_at: OfficeTime
    status: Literal["submitted"]
    components: list[ComponentRow]


class RequestTaken(BaseModel):
    """A supplement or withdrawal that is stored; workflow decides about it."""

    dossier_id: UUID
    status: Literal["submitted"]
    request: Literal["supplement", "withdrawal"]


class ContentStored(BaseModel):
    dossier_id: UUID
    code: str
    sha256: str
    size: int
    """Bytes."""
