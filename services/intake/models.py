"""The answers of intake's endpoints. The bodies that it reads are in `shared.submission`."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from shared.http.models import HttpModel
from shared.http.times import VietnamTime


class Accepted(HttpModel):
    """A submission that is stored. It takes effect exactly once, even if the service fails right after this answer."""

    dossier_id: UUID
    tracking_secret: str
    """Derived from the dossier's id and never stored. With it the citizen follows the dossier without a token."""
    status: Literal["submitted"]
    """Always `submitted`: workflow decides and shows a dossier's status."""
    procedure_code: str
    procedure_version: int
    """The version by which the submission was checked."""
    submitted_at: VietnamTime
    """Office time."""


class ComponentRow(HttpModel):
    """One component of a submission, as announced by whoever submitted it."""

    code: str
    """The component's code in the procedure."""
    kind: Literal["original", "copy", "electronic"]
    digitised: bool
    """Whether it was digitised."""
    sha256: str | None
    """The SHA-256 in hex that its content must have."""


class SubmissionView(HttpModel):
    """A submission as accepted, without personal data."""

    dossier_id: UUID
    procedure_code: str
    procedure_version: int
    """The version by which the submission was checked."""
    receiving_agency: str
    """The code of the agency that receives the dossier."""
    channel: Literal["direct", "online", "post"]
    submitted_at: VietnamTime
    """Office time."""
    status: Literal["submitted"]
    """Always `submitted`: workflow decides and shows a dossier's status."""
    components: list[ComponentRow]


class RequestTaken(HttpModel):
    """A supplement or withdrawal that is stored; workflow decides about it."""

    dossier_id: UUID
    status: Literal["submitted"]
    """Always `submitted`: workflow decides and shows a dossier's status."""
    request: Literal["supplement", "withdrawal"]


class ContentStored(HttpModel):
    """A component's content that is stored whole."""

    dossier_id: UUID
    code: str
    """The component's code."""
    sha256: str
    """SHA-256 of the content, in hex."""
    size: int
    """Bytes."""
