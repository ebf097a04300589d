"""Whether a submission may be accepted: its shape and the rules of its procedure. All complaints come at once.

A procedure is the plain document of `ProcedurePublished`; `ProcedureRules` compiles it once per version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from shared.clock import VIETNAM
from shared.refusals import Complaint, Complaints
from shared.submission.form import (
    MAX_COMPLAINTS,
    AssistedBy,
    Component,
    Submission,
    Supplement,
    Withdrawal,
    clean,
    complaint,
    read,
)
from shared.submission.subject import SubjectRules, about_day

__all__ = [
    "Component",
    "ProcedureRules",
    "Submission",
    "Supplement",
    "Withdrawal",
    "accept",
    "check",
    "check_supplement",
    "read_supplement",
    "read_withdrawal",
]


def accept(
    body: Mapping[str, Any], find: Callable[[str], ProcedureRules | None], office_now: datetime
) -> tuple[Submission, dict[str, Any]]:
    """The submission and its procedure's document. Raises Complaints.

    `find` returns the rules in force now for a procedure code, or None.
    """
    body, complaints = clean(body)
    if complaints:
        raise _refused(complaints)
    given = read(Submission, body)
    code = body.get("procedure_code")
    procedure = find(code) if isinstance(code, str) else None
    if isinstance(given, Submission):
        if procedure is None:
            raise _refused([_unknown_procedure()])
        if complaints := procedure.check(given, office_now):
            raise _refused(complaints)
        return given, procedure.document
    # The form is wrong already. The applicant gets the complaints about the subject in the same answer.
    if procedure is not None and isinstance(subject := body.get("subject"), dict):
        given += procedure.about_subject(subject, office_now)
    elif procedure is None and isinstance(code, str) and code:
        given.append(_unknown_procedure())
    raise _refused(given)


def check(submission: Submission, procedure: Mapping[str, Any], office_now: datetime) -> list[Complaint]:
    """Check a submission by a procedure's document. Compiles the document; for many checks use `ProcedureRules`."""
    return ProcedureRules(procedure).check(submission, office_now)


def read_supplement(body: Mapping[str, Any]) -> Supplement:
    """Read a supplement. Raises Complaints."""
    body, complaints = clean(body)
    given = read(Supplement, body)
    if isinstance(given, list):
        raise _refused([*complaints, *given])
    if complaints := [*complaints, *_repeated(given.components)]:
        raise _refused(complaints)
    return given


def check_supplement(given: Supplement, procedure: ProcedureRules, known: Collection[str]) -> None:
    """Check that each component belongs to the procedure or to the dossier as submitted. Raises Complaints.

    `known`: the codes of the components that were submitted.
    """
    complaints = [
        complaint(f"components/{index}/code", "unknown-component")
        for index, component in enumerate(given.components)
        if component.code not in known and not procedure.takes(component.code)
    ]
    if complaints:
        raise _refused(complaints)


def read_withdrawal(body: Mapping[str, Any]) -> Withdrawal:
    """Read a withdrawal. Raises Complaints."""
    body, complaints = clean(body)
    given = read(Withdrawal, body)
    if isinstance(given, list):
        raise _refused([*complaints, *given])
    if complaints:
        raise _refused(complaints)
    return given


class ProcedureRules:
    """One version of a procedure, compiled to check submissions."""

    __slots__ = ("_components", "_subject", "_valid_to", "code", "document", "valid_from", "version")

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)
        self.code: str = document["code"]
        self.version: int = document["version"]
        self.valid_from = date.fromisoformat(document["valid_from"])
        self._valid_to = date.fromisoformat(document["valid_to"]) if document.get("valid_to") else None
        self._components: dict[str, Mapping[str, Any]] = {row["code"]: row for row in document["components"]}
        self._subject = SubjectRules(document["subject_schema"])

    def check(self, submission: Submission, office_now: datetime) -> list[Complaint]:
        """The complaints about a submission, at most 20. Raises ValueError when it is of another procedure."""
        if submission.procedure_code != self.code:
            raise ValueError("the submission is of another procedure")
        today = office_now.astimezone(VIETNAM).date()
        complaints = [
            *self._about_validity(today),
            *self.about_components(submission.components),
            *about_day("applicant/birth_date", submission.applicant.birth_date, "birth", today),
            *_about_assistance(submission.channel, submission.assisted_by),
            *self.about_subject(submission.subject, office_now),
        ]
        return complaints[:MAX_COMPLAINTS]

    def takes(self, code: str) -> bool:
        """Whether the procedure has a component of this code."""
        return code in self._components

    def about_components(self, components: Sequence[Component]) -> list[Complaint]:
        """Missing, unknown and repeated components, and kinds that the procedure does not take."""
        complaints = list(_repeated(components))
        for index, component in enumerate(components):
            rule = self._components.get(component.code)
            if rule is None:
                complaints.append(complaint(f"components/{index}/code", "unknown-component"))
            elif component.kind not in rule["kinds"]:
                field = f"components/{index}/kind"
                complaints.append(complaint(field, "component-kind-not-allowed", rule["names"]["vi"]))
        given = {component.code for component in components}
        for code, rule in self._components.items():
            if rule["required"] and code not in given:
                vi, en = rule["names"]["vi"], rule["names"]["en"]
                complaints.append(
                    Complaint(
                        "components",
                        "missing-component",
                        f"Thiếu thành phần: {vi} ({code}).",
                        f"Missing component: {en} ({code}).",
                    )
                )
        return complaints

    def about_subject(self, subject: Mapping[str, Any], office_now: datetime) -> list[Complaint]:
        """Complaints about a subject that does not fit its schema, and about impossible days."""
        return self._subject.check(subject, office_now.astimezone(VIETNAM).date())

    def _about_validity(self, today: date) -> Iterator[Complaint]:
        if today < self.valid_from:
            yield Complaint(
                "procedure_code",
                "procedure-not-yet-valid",
                f"Thủ tục này có hiệu lực từ {self.valid_from:%d-%m-%Y}.",
                f"This procedure is valid from {self.valid_from}.",
            )
        elif self._valid_to is not None and today > self._valid_to:
            yield Complaint(
                "procedure_code",
                "procedure-closed",
                f"Thủ tục này hết hiệu lực sau ngày {self._valid_to:%d-%m-%Y}.",
                f"This procedure was valid until {self._valid_to}.",
            )


def _repeated(components: Iterable[Component]) -> Iterator[Complaint]:
    seen: set[str] = set()
    for index, component in enumerate(components):
        if component.code in seen:
            yield complaint(f"components/{index}/code", "duplicate-component")
        seen.add(component.code)


def _about_assistance(channel: str, assisted_by: AssistedBy | None) -> Iterator[Complaint]:
    """An officer or the community team can file at the counter or online, never by post."""
    if assisted_by is not None and channel == "post" and assisted_by.kind in ("officer", "community_team"):
        yield complaint("assisted_by/kind", "assistance-not-for-channel")


def _unknown_procedure() -> Complaint:
    return Complaint("procedure_code", "unknown-procedure", "Không có thủ tục này.", "There is no such procedure.")


def _refused(complaints: Sequence[Complaint]) -> Complaints:
    """All complaints as one error. Its code is that of a complaint about the procedure, else `invalid-submission`."""
    first = next((row for row in complaints if row.field == "procedure_code" and "procedure" in row.code), None)
    return Complaints(
        first.code if first else "invalid-submission",
        first.vi if first else "Hồ sơ chưa hợp lệ; chưa lưu gì. Xem từng mục trong errors.",
        first.en if first else "The submission is not valid; nothing was stored. See errors.",
        complaints[:MAX_COMPLAINTS],
    )
