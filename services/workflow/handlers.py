"""What workflow is told by intake, idlookup and notify."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from services.workflow import lifecycle, store
from services.workflow.catalogue import ProcedureCatalogue
from services.workflow.store import UnitOfWork
from shared.clock import VIETNAM
from shared.contract.envelope import Outgoing, Received, new_id
from shared.contract.events import (
    IDNUMBER_RESULTS,
    NOTICES,
    SUBMISSIONS,
    ComponentStored,
    DossierSubmitted,
    Fact,
    Heartbeat,
    IdCheckAnswered,
    IdNumberDuplicateSuspected,
    IdNumberFound,
    IdNumberRefused,
    IdNumberStillPending,
    NoticeFailed,
    NoticeHeartbeat,
    NoticeOutcome,
    NoticeRequestHeartbeat,
    NoticeSent,
    RequestHeartbeat,
    ResultHeartbeat,
    SubmissionHeartbeat,
    SupplementSubmitted,
    WithdrawalRequested,
)
from shared.inbox.consumer import Handler, Unappliable
from shared.service import Listening, Service

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

TOPICS = (SUBMISSIONS, IDNUMBER_RESULTS, NOTICES)


def on_dossier_submitted(work: UnitOfWork, event: Received) -> None:
    fact, dossier_id = event.fact, event.dossier_id
    assert isinstance(fact, DossierSubmitted)
    assert dossier_id is not None
    book: ProcedureCatalogue = work.service.extras["rulebook"]
    procedure = book.version(fact.procedure_code, fact.procedure_version)
    if procedure is None:
        raise Unappliable("unknown-procedure", f"version {fact.procedure_version} was never published here")
    if dossier_id in work.dossiers:
        raise Unappliable("submitted-before", "this dossier is known already")
    dossier = lifecycle.begin(fact, dossier_id, event.trace_id, procedure.group)
    open_now = work.modes.get(fact.procedure_code, "open") == "open"
    made = lifecycle.submitted(dossier, procedure, fact, work.moment, open_for_reception=open_now)
    work.remember(dossier, made)


def on_dossier_fact(work: UnitOfWork, event: Received) -> None:
    """A fact about a dossier that is known; what it means is the rules' to say."""
    assert event.dossier_id is not None
    assert event.fact is not None
    dossier = work.dossiers.get(event.dossier_id)
    if dossier is None:
        raise Unappliable("unknown-dossier", "nothing was submitted under this id")
    work.remember(dossier, lifecycle.decide(dossier, work.procedure(dossier), event.fact, work.moment))


def on_notice_outcome(work: UnitOfWork, event: Received) -> None:
    fact = event.fact
    assert isinstance(fact, NoticeOutcome)
    if isinstance(fact, NoticeFailed) and fact.next_channel is not None:
        return  # another channel took over: its outcome is the notice's
    work.notices_done.append(fact.notice_id)


def on_submission_heartbeat(work: UnitOfWork, event: Received) -> None:
    """Seen here; sent on through the two stages behind this one."""
    fact = event.fact
    assert isinstance(fact, Heartbeat)
    _seen(work, "relay", fact)
    for onward in (RequestHeartbeat(sent_at=fact.sent_at), NoticeRequestHeartbeat(sent_at=fact.sent_at)):
        work.extra.append(Outgoing(None, 0, onward, new_id(), event.trace_id, key="heartbeat"))


def on_result_heartbeat(work: UnitOfWork, event: Received) -> None:
    assert isinstance(event.fact, Heartbeat)
    _seen(work, "id_number", event.fact)


def on_notice_heartbeat(work: UnitOfWork, event: Received) -> None:
    assert isinstance(event.fact, Heartbeat)
    _seen(work, "notify", event.fact)


def _seen(work: UnitOfWork, stage: str, fact: Heartbeat) -> None:
    work.service.delivery.beat(stage, fact.sent_at)


HANDLERS: dict[type[Fact], Handler] = {
    DossierSubmitted: on_dossier_submitted,
    ComponentStored: on_dossier_fact,
    SupplementSubmitted: on_dossier_fact,
    WithdrawalRequested: on_dossier_fact,
    IdNumberFound: on_dossier_fact,
    IdNumberStillPending: on_dossier_fact,
    IdNumberDuplicateSuspected: on_dossier_fact,
    IdNumberRefused: on_dossier_fact,
    IdCheckAnswered: on_dossier_fact,
    NoticeSent: on_notice_outcome,
    NoticeFailed: on_notice_outcome,
    SubmissionHeartbeat: on_submission_heartbeat,
    ResultHeartbeat: on_result_heartbeat,
    NoticeHeartbeat: on_notice_heartbeat,
}


def _asks_for_nothing_stored(event: Received) -> bool:
    """An outcome only ends its own notice; and before a dossier's first event nothing can be stored of it."""
    return isinstance(event.fact, NoticeOutcome) or (isinstance(event.fact, DossierSubmitted) and event.sequence == 1)


def listening(service: Service) -> Listening:
    async def open_work(tx: Tx, events: Sequence[Received]) -> UnitOfWork:
        new = [event.fact for event in events if isinstance(event.fact, DossierSubmitted)]
        concerned: set[UUID] = {
            event.dossier_id for event in events if event.dossier_id is not None and not _asks_for_nothing_stored(event)
        }
        book: ProcedureCatalogue = service.extras["rulebook"]
        if any(book.version(fact.procedure_code, fact.procedure_version) is None for fact in new):
            await book.refresh(tx)
        return await store.open_work(
            tx,
            service,
            concerned,
            # Of the day it was filed: what is read after midnight was still received the day before.
            received_on=Counter((fact.receiving_agency, fact.office_at.astimezone(VIETNAM).date()) for fact in new),
            procedures={fact.procedure_code for fact in new},
        )

    return Listening(TOPICS, open_work, HANDLERS)
