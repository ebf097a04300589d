"""Every fact the services publish: the only contract between them.

One class is one fact. Its docstring says what the fact means and when it is published; `meanings.toml` beside this file
says the same in Vietnamese and describes every field. The envelope (id, sequence, time, trace) is
`shared.contract.envelope`. A new fact costs six edits: its class here, its meaning in `meanings.toml`, `on_<fact>` in
the handlers of each consumer, the rule that publishes it, its golden sample in `tests/contracts/samples/`, and, after
`make docs`, a copy of its schema in `tests/contracts/schemas_v1/`.

Fields of type `OfficeTime` are office time (see `shared.clock`), always written with the offset +07:00. Fields called
`sealed_*` hold personal data encrypted by `shared.privacy.sealed`; facts on public topics have none of them. Reasons,
outcomes, stages, channels and kinds are open strings: new values may be added, and a reader accepts unknown ones.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema, core_schema

from shared.contract.zone import VIETNAM

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


def _in_vietnam(at: datetime) -> datetime:
    return at if at.tzinfo is VIETNAM or at.tzinfo is None else at.astimezone(VIETNAM)


class _InVietnam:
    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        as_it_is = handler(source)
        converted = core_schema.no_info_after_validator_function(_in_vietnam, as_it_is)
        return core_schema.json_or_python_schema(json_schema=as_it_is, python_schema=converted)


OfficeTime = Annotated[datetime, _InVietnam]
"""Office time. A fact that a service makes gets it at +07:00, whatever zone it came in; reading changes nothing."""


class Fact(BaseModel):
    """What happened, in the past tense. Subclasses name their topic."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    topic: ClassVar[str]

    @classmethod
    def ce_type(cls) -> str:
        return f"vn.hoso.{cls.__name__}.v1"

    def to_json(self) -> bytes:
        """The value of the record: the same JSON as `model_dump_json`, as bytes."""
        return self.__pydantic_serializer__.to_json(self)


class Heartbeat(Fact):
    """A synthetic record that passes a machine stage. It belongs to no dossier and has no sequence: key `heartbeat`."""

    sent_at: datetime
    """Wall time in UTC: when intake sent the first of the chain."""


def _heartbeat_on(topic: str, name: str) -> type[Heartbeat]:
    kind = create_model(name, __base__=Heartbeat, __module__=__name__, __doc__=Heartbeat.__doc__)
    kind.topic = topic
    return kind


# ---- dossier.lifecycle.v1: the public facts, in order per dossier -----------------------------------------------


class LifecycleFact(Fact):
    """A public fact about one dossier. Carries no name, number, phone, address, note or file."""

    topic: ClassVar[str] = LIFECYCLE
    office_at: OfficeTime
    procedure_code: str
    procedure_version: int
    receiving_agency: str
    national_status: int | None = None
    """1..10 where this fact changes it, else null."""


class DossierRecorded(LifecycleFact):
    """The dossier exists. The first fact of every dossier, published when workflow has read the submission."""

    channel: str
    assisted: bool = False
    waiting_for: str | None = None


class DossierReceived(LifecycleFact):
    """The dossier is received: it has its code and its due date, and the legal clock runs.

    Published at once where an officer filed it at the counter, otherwise when reception accepts it.
    """

    dossier_code: str
    due_at: OfficeTime | None


class DossierNotAccepted(LifecycleFact):
    """Reception did not accept the dossier (form 03): no code, no clock. An end."""

    reason: str


class StepStarted(LifecycleFact):
    """A dossier entered a stage and waits for an officer there.

    For the stage `reception` it is published only when a dossier comes back to it: its procedure was opened, or the
    supplement that reception asked for was handed in. Payment and the return in the same visit have no StepStarted.
    """

    stage: str
    task_id: UUID
    outcome: str | None = None


class StepCompleted(LifecycleFact):
    """An officer ended a stage. Reception, payment and the return in the same visit have facts of their own instead."""

    stage: str
    task_id: UUID
    outcome: str


class StepReturned(LifecycleFact):
    """An officer sent the dossier back one step. StepStarted of that step follows."""

    stage: str
    task_id: UUID
    outcome: str
    back_to: str


class StepReassigned(LifecycleFact):
    """An officer's step was given to another role. Not published yet."""

    stage: str
    task_id: UUID
    outcome: str | None = None
    role: str


class ClockPaused(LifecycleFact):
    """The legal clock stopped. Published when a received dossier waits for a supplement or for a payment."""

    reason: str


class ClockResumed(LifecycleFact):
    """The legal clock runs again; the due date moved by the working days of the pause. Published after PaymentMade."""

    reason: str
    due_at: OfficeTime | None


class ClockRestarted(LifecycleFact):
    """The legal clock started again from its beginning. Published when the supplement of a received dossier is in."""

    reason: str
    due_at: OfficeTime | None


class SupplementRequested(LifecycleFact):
    """The applicant was asked to complete the papers (form 02). Published by reception or appraisal."""

    components: tuple[str, ...] = ()


class PaymentRequired(LifecycleFact):
    """The applicant has to meet a financial obligation: a tax or a land payment, no fee. Published after appraisal."""


class PaymentMade(LifecycleFact):
    """The financial obligation is met. Published when the counter records it."""


class ConsultationAsked(LifecycleFact):
    """Another agency was asked for its opinion. Published when the consultation step starts."""

    answer_due_at: OfficeTime | None = None


class ConsultationAnswered(LifecycleFact):
    """The opinion came. Published just before the StepCompleted of the consultation."""


class DeadlineExtended(LifecycleFact):
    """The result comes later than promised, and the new date was announced. Not published yet."""

    reason: str
    due_at: OfficeTime


class IdNumberRequested(LifecycleFact):
    """The population registry was asked for a personal identification number. Published at every new request."""


class IdNumberDelayed(LifecycleFact):
    """The population registry has not answered in time. Other steps go on. Published once per request."""

    since: OfficeTime


class IdNumberIssued(LifecycleFact):
    """The number exists; this fact never carries it. It may follow any end of a dossier and changes no status."""


class ResultSigned(LifecycleFact):
    """The result was signed. Sending the dossier back to approval makes it void; the next signature is a new fact."""

    signed_as: str
    signature: str


class DossierRefused(LifecycleFact):
    """The agency refused the request after it had received the dossier, with a reasoned letter. An end."""

    reason: str


class DossierWithdrawn(LifecycleFact):
    """The applicant withdrew the dossier before it was decided. An end."""


class DossierStopped(LifecycleFact):
    """The agency stopped processing the dossier. Not published yet."""

    reason: str


class DossierResolved(LifecycleFact):
    """The dossier is decided and the result is ready: the end time for the legal deadline (Decision 766/QĐ-TTg)."""


class ResultReturned(LifecycleFact):
    """The result was handed over. An end."""

    without_number: bool = False


class RequestDeclined(LifecycleFact):
    """A supplement or a withdrawal had no effect: it was not asked for, or came after the decision."""

    request: str
    reason: str


# ---- internal.submissions.v1: what intake accepted ----------------------------------------------------------------


class SubmittedComponent(BaseModel):
    """One paper of a submission or of a supplement."""

    model_config = ConfigDict(frozen=True)
    code: str
    kind: str
    digitised: bool = False
    sha256: str | None = None


class DossierSubmitted(Fact):
    """Intake accepted a submission and answered 201. The first fact of every dossier on this topic."""

    topic: ClassVar[str] = SUBMISSIONS
    office_at: OfficeTime
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
    """{full_name, phone?, email?, residential_area?}: only notify opens it."""
    sealed_person: str
    """{full_name, birth_date?, personal_id?} of the applicant: only idlookup opens it."""
    sealed_subject: str
    """The subject as submitted: only idlookup opens it."""


class ComponentStored(Fact):
    """Intake stored the content of a component. It changes no status."""

    topic: ClassVar[str] = SUBMISSIONS
    office_at: OfficeTime
    component_code: str
    sha256: str
    size: int


class SupplementSubmitted(Fact):
    """The applicant handed in a supplement. workflow publishes ClockRestarted, StepStarted or RequestDeclined then."""

    topic: ClassVar[str] = SUBMISSIONS
    office_at: OfficeTime
    components: tuple[SubmittedComponent, ...]
    sealed_note: str | None = None


class WithdrawalRequested(Fact):
    """The applicant asked to withdraw the dossier. DossierWithdrawn or RequestDeclined follows."""

    topic: ClassVar[str] = SUBMISSIONS
    office_at: OfficeTime
    sealed_reason: str


SubmissionHeartbeat = _heartbeat_on(SUBMISSIONS, "SubmissionHeartbeat")


# ---- internal.idnumber-requests.v1: what workflow asks of the registry --------------------------------------------


class IdNumberWanted(Fact):
    """workflow needs a personal identification number for the subject of a dossier.

    The event's own id is the request key: it is never derived from the data and never used for another request.
    """

    topic: ClassVar[str] = IDNUMBER_REQUESTS
    office_at: OfficeTime
    procedure_group: str
    sealed_subject: str


class IdCheckWanted(Fact):
    """workflow wants the applicant's number, name and birth date compared with the registry's.

    The event's own id is the request key.
    """

    topic: ClassVar[str] = IDNUMBER_REQUESTS
    office_at: OfficeTime
    procedure_group: str
    sealed_person: str


class IdNumberNoLongerWanted(Fact):
    """The dossier ended without its number. idlookup sends no further request. It still asks what became of this one,
    and publishes a number issued already."""

    topic: ClassVar[str] = IDNUMBER_REQUESTS
    office_at: OfficeTime
    request_key: UUID


RequestHeartbeat = _heartbeat_on(IDNUMBER_REQUESTS, "RequestHeartbeat")


# ---- internal.idnumber-results.v1: what the registry answered ------------------------------------------------------


class RequestResult(Fact):
    topic: ClassVar[str] = IDNUMBER_RESULTS
    request_key: UUID


class IdNumberFound(RequestResult):
    """The registry issued the number."""

    sealed_number: str
    warnings: tuple[str, ...] = ()


class IdNumberStillPending(RequestResult):
    """The number is late. Published once per request, whether the registry was reached or not."""

    since: OfficeTime


class IdNumberDuplicateSuspected(RequestResult):
    """The registry suspects that this person already has a number: somebody has to look. The request stays open."""


class IdNumberRefused(RequestResult):
    """The registry rejected the request. Only now may workflow make a new one, with a new key."""

    reason: str


class IdCheckAnswered(RequestResult):
    """The registry answered an identity check."""

    answer: str


ResultHeartbeat = _heartbeat_on(IDNUMBER_RESULTS, "ResultHeartbeat")


# ---- internal.notice-requests.v1 and internal.notices.v1 -----------------------------------------------------------


class NoticeWanted(Fact):
    """The applicant is to be informed. The event's own id is the notice id: one notice goes out once per channel."""

    topic: ClassVar[str] = NOTICE_REQUESTS
    office_at: OfficeTime
    kind: str
    cause: str
    dossier_code: str | None
    national_status: int
    due_at: OfficeTime | None = None
    receiving_agency: str
    sealed_contact: str


NoticeRequestHeartbeat = _heartbeat_on(NOTICE_REQUESTS, "NoticeRequestHeartbeat")


class NoticeOutcome(Fact):
    topic: ClassVar[str] = NOTICES
    notice_id: UUID
    kind: str
    channel: str


class NoticeSent(NoticeOutcome):
    """The channel took the message. On `call_list`: the applicant is on the list of people to call."""


class NoticeFailed(NoticeOutcome):
    """A channel did not deliver, or may not have delivered, the message; the next channel takes over."""

    reason: str
    next_channel: str | None = None


NoticeHeartbeat = _heartbeat_on(NOTICES, "NoticeHeartbeat")


# ---- internal.procedures.v1: compacted, key = procedure code -------------------------------------------------------


class ProcedurePublished(Fact):
    """The rules of one version of a procedure. Of the versions whose `valid_from` has come, the highest is in force."""

    topic: ClassVar[str] = PROCEDURES
    code: str
    version: int
    procedure: dict[str, Any]
    """The document of `GET /v1/procedures/{code}` without its intake mode."""


def _catalogue() -> dict[str, type[Fact]]:
    types: dict[str, type[Fact]] = {}
    waiting: list[type[Fact]] = [Fact]
    while waiting:
        kind = waiting.pop()
        below = kind.__subclasses__()
        waiting.extend(below)
        if not below:
            types[kind.ce_type()] = kind
    return types


EVENT_TYPES: dict[str, type[Fact]] = _catalogue()
"""ce_type -> class, for every fact there is. A record whose type is not here is parked."""
