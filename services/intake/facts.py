"""The facts that intake publishes. Persons, contacts and subjects are sealed; the rest is as submitted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from shared.contract.events import DossierSubmitted, SubmittedComponent
from shared.privacy.sealed import Sealer
from shared.submission import rules


class Filing(NamedTuple):
    """What is known about a submission beside its content."""

    dossier_id: UUID
    procedure_version: int
    office_at: datetime
    caller_role: str


def submitted(sealer: Sealer, submission: rules.Submission, filing: Filing) -> DossierSubmitted:
    dossier_id, person, helper = filing.dossier_id, submission.applicant, submission.assisted_by
    contact = {
        "full_name": person.full_name,
        "phone": person.phone,
        "email": person.email,
        "residential_area": submission.residential_area,
    }
    who = {"full_name": person.full_name, "birth_date": person.birth_date, "personal_id": person.personal_id}
    return DossierSubmitted(
        office_at=filing.office_at,
        procedure_code=submission.procedure_code,
        procedure_version=filing.procedure_version,
        receiving_agency=submission.receiving_agency,
        support_point=submission.support_point,
        channel=submission.channel,
        caller_role=filing.caller_role,
        assisted_by_kind=helper.kind if helper else None,
        assisted_by_ref=helper.ref if helper else None,
        components=components(submission.components),
        copies=submission.copies,
        pages=submission.pages,
        has_personal_id=person.personal_id is not None,
        identity_method=person.identity.method,
        sealed_contact=sealer.seal(dossier_id, "contact", {name: value for name, value in contact.items() if value}),
        sealed_person=sealer.seal(dossier_id, "person", {name: value for name, value in who.items() if value}),
        sealed_subject=sealer.seal(dossier_id, "subject", submission.subject),
    )


def components(parts: Sequence[rules.Component]) -> tuple[SubmittedComponent, ...]:
    return tuple(
        SubmittedComponent(code=part.code, kind=part.kind, digitised=part.digitised, sha256=part.sha256)
        for part in parts
    )
