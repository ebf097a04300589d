"""The dossiers of every contender: nine applications for a certificate to one birth.

No dossier has a personal number, so no identity check happens. For the birth, idlookup requests a number from the
registry over HTTP. No applicant has a mobile phone: the notice goes on the call list, which needs no gateway.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from services.intake.store import NewSubmission, SubmissionKey
from shared.contract.envelope import new_id
from shared.contract.events import DossierSubmitted, SubmittedComponent
from shared.contract.partitions import DossierIds
from shared.privacy.sealed import Sealer

PLAIN, BIRTH = "1.004873", "1.001193"
BIRTHS = 10
"""One dossier in this many is a birth."""
AGENCIES = 20
BUSY = 1_000.0
"""Assumed submissions per second when they are committed before the run: about what intake accepts."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def name_of(number: int) -> str:
    """Return a different name for every number, so that the registry sees different persons."""
    letters = ""
    while number:
        number, index = divmod(number, len(LETTERS))
        letters += LETTERS[index]
    return f"Nguyễn Văn {letters.capitalize() or 'A'}"


def is_birth(number: int) -> bool:
    return number % BIRTHS == 0


def body_of(examples: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the body of `POST /v1/dossiers` for dossier `number`, as sent from a counter."""
    body: dict[str, Any] = deepcopy(examples[BIRTH if is_birth(number) else PLAIN])
    body["channel"] = "direct"
    body["receiving_agency"] = f"H44.B{number % AGENCIES:02d}"
    body.pop("assisted_by", None)
    for name in ("personal_id", "phone", "email"):
        body["applicant"].pop(name, None)
    body["applicant"]["identity"] = {"method": "card_seen"}
    if is_birth(number):
        body["subject"]["child"]["full_name"] = name_of(number)
    return body


def submissions(
    examples: Mapping[str, Any],
    versions: Mapping[str, int],
    sealer: Sealer,
    office_now: datetime,
    numbers: range,
    per_second: float = BUSY,
) -> Iterator[NewSubmission]:
    """Yield what intake stores for those bodies: same rows, same sealed fields, ids as of arrivals at `per_second`."""
    ids = DossierIds()
    for index, number in enumerate(numbers):
        body, dossier_id = body_of(examples, number), ids.next(index / per_second)
        person = body["applicant"]
        contact = {"full_name": person["full_name"], "residential_area": body.get("residential_area")}
        identity = {"full_name": person["full_name"], "birth_date": person.get("birth_date"), "personal_id": None}
        fact = DossierSubmitted(
            office_at=office_now,
            procedure_code=body["procedure_code"],
            procedure_version=versions[body["procedure_code"]],
            receiving_agency=body["receiving_agency"],
            channel="direct",
            caller_role="counter",
            components=tuple(SubmittedComponent(**part) for part in body["components"]),
            identity_method="card_seen",
            sealed_contact=sealer.seal(dossier_id, "contact", {k: v for k, v in contact.items() if v}),
            sealed_person=sealer.seal(dossier_id, "person", {k: v for k, v in identity.items() if v}),
            sealed_subject=sealer.seal(dossier_id, "subject", body["subject"]),
        )
        digest = hashlib.sha256(dossier_id.bytes).digest()
        yield NewSubmission(dossier_id, SubmissionKey("bench", str(dossier_id)), digest, fact, new_id())
