"""Every fact the services tell each other: the only contract between them.

One class is one fact. A class says its topic, its fields and nothing else; the envelope (id, sequence,
time, trace) is `shared.contract.envelope`. A new fact costs five edits: its class here, `on_<fact>` in the handlers of
whoever listens, the rule it obeys, its golden sample in `tests/contracts/samples/`, and `make docs`.

Times are timezone-aware; `office_at` is the centre's own time (see `shared.clock`). Fields called `sealed_*` hold
personal data encrypted by `shared.privacy.sealed`; facts on public topics have none of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

LIFECYCLE = "dossier.lifecycle.v1"
STATE = "dossier.state.v1"
SUBMISSIONS = "internal.submissions.v1"
IDNUMBER_REQUESTS = "internal.idnumber-requests.v1"
IDNUMBER_RESULTS = "internal.idnumber-results.v1"
NOTICE_REQUESTS = "internal.notice-requests.v1"
NOTICES = "internal.notices.v1"
PROCEDURES = "internal.procedures.v1"

PARTITIONS = 12
PUBLIC = frozenset({LIFECYCLE, STATE})
COMPACTED = frozenset({STATE, PROCEDURES})
PRODUCER = {
    LIFECYCLE: "workflow",
    STATE: "workflow",
    SUBMISSIONS: "intake",
    IDNUMBER_REQUESTS: "workflow",
    IDNUMBER_RESULTS: "idlookup",
    NOTICE_REQUESTS: "workflow",
    NOTICES: "notify",
    PROCEDURES: "workflow",
}
TOPICS = tuple(PRODUCER)


class Fact(BaseModel):
    """What happened, in the past tense. Subclasses name their topic."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    topic: ClassVar[str]

    @classmethod
    def ce_type(cls) -> str:
        return f"vn.hoso.{cls.__name__}.v1"

    def to_json(self) -> bytes:
        """The value of the record: what `model_dump_json` says, without a string in between."""
        return self.__pydantic_serializer__.to_json(self)


class Heartbeat(Fact):
    """A synthetic item that passes every machine stage; it belongs to no dossier and has no sequence."""

    sent_at: datetime


# ---- dossier.lifecycle.v1: the public facts, in order per dossier -----------------------------------------------


class LifecycleFact(Fact):
    """A public fact about one dossier. Carries no name, number, phone, address, note or file."""

    topic: ClassVar[str] = LIFECYCLE
    office_at: datetime
    procedure_code: str
    procedure_version: int
    receiving_agency: str
    national_status: int | None = None
    """1..10 where this fact changes it, else null."""


class DossierRecorded(LifecycleFact):
    channel: str
    assisted: bool = False
    waiting_for: str | None = None
    """Why it is recorded and not received (`reception`, or the procedure's reason while it is record_only)."""


class DossierReceived(LifecycleFact):
    dossier_code: str
    due_at: datetime | None


class DossierNotAccepted(LifecycleFact):
    reason: str


class StepStarted(LifecycleFact):
    stage: str
    task_id: UUID
    outcome: str | None = None


class StepCompleted(LifecycleFact):
    stage: str
    task_id: UUID
    outcome: str


class StepReturned(LifecycleFact):
    stage: str
    task_id: UUID
    outcome: str
    back_to: str


class StepReassigned(LifecycleFact):
    stage: str
    task_id: UUID
    outcome: str | None = None
    role: str


class ClockPaused(LifecycleFact):
    reason: str


class ClockResumed(LifecycleFact):
    reason: str
    due_at: datetime | None


class ClockRestarted(LifecycleFact):
    reason: str
    due_at: datetime | None


class SupplementRequested(LifecycleFact):
    components: tuple[str, ...] = ()


class PaymentRequired(LifecycleFact):
    pass


class PaymentMade(LifecycleFact):
    pass


class ConsultationAsked(LifecycleFact):
    answer_due_at: datetime | None = None


class ConsultationAnswered(LifecycleFact):
    pass


class DeadlineExtended(LifecycleFact):
    reason: str
    due_at: datetime


class IdNumberRequested(LifecycleFact):
    pass


class IdNumberDelayed(LifecycleFact):
    since: datetime


class IdNumberIssued(LifecycleFact):
    """The number exists. Never the number itself."""


class ResultSigned(LifecycleFact):
    signed_as: str
    signature: str


class DossierRefused(LifecycleFact):
    reason: str


class DossierWithdrawn(LifecycleFact):
    pass


class DossierStopped(LifecycleFact):
    reason: str


class DossierResolved(LifecycleFact):
    pass


class ResultReturned(LifecycleFact):
    without_number: bool = False


class RequestDeclined(LifecycleFact):
    request: str
    """`supplement` or `withdrawal`."""
    reason: str


# ---- internal.submissions.v1: what intake was given ---------------------------------------------------------------


class SubmittedComponent(BaseModel):
    model_config = ConfigDict(frozen=True)
    code: str
    kind: str
    digitised: bool = False
    sha256: str | None = None


class DossierSubmitted(Fact):
    topic: ClassVar[str] = SUBMISSIONS
    office_at: datetime
    procedure_code: str
    procedure_version: int
    receiving_agency: str
    support_point: str | None = None
    channel: str
    caller_role: str
    assisted_by_kind: str | None = None
    assisted_by_ref: str | None = None
    components: tuple[SubmittedComponent, ...] = ()
    copies: int | None = None
    pages: int | None = None
    has_personal_id: bool = False
    identity_method: str = "none"
    sealed_contact: str
    """{full_name, phone?, email?, residential_area?}: opened by notify alone."""
    sealed_person: str
    """{full_name, birth_date?, personal_id?} of the applicant: opened by idlookup alone."""
    sealed_subject: str
    """The subject as submitted: opened by idlookup alone."""


class ComponentStored(Fact):
    topic: ClassVar[str] = SUBMISSIONS
    office_at: datetime
    component_code: str
    sha256: str
    size: int


class SupplementSubmitted(Fact):
    topic: ClassVar[str] = SUBMISSIONS
    office_at: datetime
    components: tuple[SubmittedComponent, ...]
    sealed_note: str | None = None


class WithdrawalRequested(Fact):
    topic: ClassVar[str] = SUBMISSIONS
    office_at: datetime
    sealed_reason: str


class SubmissionHeartbeat(Heartbeat):
    topic: ClassVar[str] = SUBMISSIONS


# ---- internal.idnumber-requests.v1: what workflow wants of the registry -------------------------------------------


class IdNumberWanted(Fact):
    """The event's own id is the request key: it is never made of the data, and never used for another request."""

    topic: ClassVar[str] = IDNUMBER_REQUESTS
    office_at: datetime
    procedure_group: str
    sealed_subject: str


class IdCheckWanted(Fact):
    topic: ClassVar[str] = IDNUMBER_REQUESTS
    office_at: datetime
    procedure_group: str
    sealed_person: str


class IdNumberNoLongerWanted(Fact):
    """Stops new calls; a number already issued is still fetched and reported."""

    topic: ClassVar[str] = IDNUMBER_REQUESTS
    office_at: datetime
    request_key: UUID


class RequestHeartbeat(Heartbeat):
    topic: ClassVar[str] = IDNUMBER_REQUESTS


# ---- internal.idnumber-results.v1: what idlookup learned -----------------------------------------------------------


class RequestResult(Fact):
    topic: ClassVar[str] = IDNUMBER_RESULTS
    request_key: UUID


class IdNumberFound(RequestResult):
    sealed_number: str
    warnings: tuple[str, ...] = ()


class IdNumberStillPending(RequestResult):
    since: datetime


class IdNumberDuplicateSuspected(RequestResult):
    pass


class IdNumberRefused(RequestResult):
    reason: str


class IdCheckAnswered(RequestResult):
    answer: str
    """`match`, `mismatch` or `rejected`."""


class ResultHeartbeat(Heartbeat):
    topic: ClassVar[str] = IDNUMBER_RESULTS


# ---- internal.notice-requests.v1 and internal.notices.v1 -----------------------------------------------------------


class NoticeWanted(Fact):
    """The event's own id is the notice id: one notice goes out once on each channel it is given."""

    topic: ClassVar[str] = NOTICE_REQUESTS
    office_at: datetime
    kind: str
    cause: str
    """The lifecycle fact it tells of, e.g. `DossierReceived`."""
    dossier_code: str | None
    national_status: int
    due_at: datetime | None = None
    receiving_agency: str
    sealed_contact: str


class NoticeRequestHeartbeat(Heartbeat):
    topic: ClassVar[str] = NOTICE_REQUESTS


class NoticeOutcome(Fact):
    topic: ClassVar[str] = NOTICES
    notice_id: UUID
    kind: str
    channel: str


class NoticeSent(NoticeOutcome):
    pass


class NoticeFailed(NoticeOutcome):
    reason: str
    next_channel: str | None = None
    """The channel that took over: the notice is still on its way."""


class NoticeHeartbeat(Heartbeat):
    topic: ClassVar[str] = NOTICES


# ---- internal.procedures.v1: compacted, key = procedure code -------------------------------------------------------


class ProcedurePublished(Fact):
    """The rules of one procedure, whole; of the versions whose `valid_from` has come the highest wins."""

    topic: ClassVar[str] = PROCEDURES
    code: str
    version: int
    procedure: dict[str, Any]
    """The document of `services/workflow/procedures`: what `GET /v1/procedures/{code}` shows, but its intake mode."""


def _catalogue() -> dict[str, type[Fact]]:
    found: dict[str, type[Fact]] = {}
    waiting: list[type[Fact]] = [Fact]
    while waiting:
        kind = waiting.pop()
        below = kind.__subclasses__()
        waiting.extend(below)
        if not below:
            found[kind.ce_type()] = kind
    return found


EVENT_TYPES: dict[str, type[Fact]] = _catalogue()
"""ce_type -> class, for every fact there is. A record whose type is not here is parked."""
