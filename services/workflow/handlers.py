"""The events that workflow consumes: those of intake, idlookup and notify."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from services.workflow import lifecycle, store
from services.workflow.app import WorkflowApp
from services.workflow.stock import AgencyDay
from services.workflow.store import Needs, UnitOfWork
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
from shared.inbox.consumer import Handler, Inbox, Unappliable

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

TOPICS = (SUBMISSIONS, IDNUMBER_RESULTS, NOTICES)


def on_dossier_submitted(unit: UnitOfWork, event: Received) -> None:
    """The first event of a dossier. Raises Unappliable for an unknown version, and for a dossier that is known."""
    fact, dossier_id = event.fact, event.dossier_id
    assert isinstance(fact, DossierSubmitted)
    assert dossier_id is not None
    procedure = unit.app.catalogue.version(fact.procedure_code, fact.procedure_version)
    if procedure is None:
        raise Unappliable("unknown-procedure", f"this service has not published version {fact.procedure_version}")
    if dossier_id in unit.dossiers:
        raise Unappliable("submitted-before", "this dossier was submitted before")
    dossier = lifecycle.begin(fact, dossier_id, event.trace_id, procedure.group)
    open_now = unit.modes.get(fact.procedure_code, "open") == "open"
    decision = lifecycle.submitted(dossier, procedure, fact, unit.context, open_for_reception=open_now)
    unit.remember(dossier, decision)


def on_dossier_fact(unit: UnitOfWork, event: Received) -> None:
    """An event about a known dossier: the rules decide what follows. Raises Unappliable for an unknown dossier."""
    assert event.dossier_id is not None
    assert event.fact is not None
    dossier = unit.dossiers.get(event.dossier_id)
    if dossier is None:
        raise Unappliable("unknown-dossier", "nothing was submitted under this id")
    unit.remember(dossier, lifecycle.decide(dossier, unit.procedure(dossier), event.fact, unit.context))


def on_notice_outcome(unit: UnitOfWork, event: Received) -> None:
    """A notice was sent or has failed: it is no longer awaited."""
    fact = event.fact
    assert isinstance(fact, NoticeOutcome)
    if isinstance(fact, NoticeFailed) and fact.next_channel is not None:
        return  # the next channel's outcome will be the notice's
    unit.notices_done.append(fact.notice_id)


def on_submission_heartbeat(unit: UnitOfWork, event: Received) -> None:
    """Show it in the metrics, and send it on to idlookup and to notify, which answer it."""
    fact = event.fact
    assert isinstance(fact, Heartbeat)
    _show_heartbeat(unit, "relay", fact)
    for heartbeat in (RequestHeartbeat(sent_at=fact.sent_at), NoticeRequestHeartbeat(sent_at=fact.sent_at)):
        unit.heartbeats.append(Outgoing(None, 0, heartbeat, new_id(), event.trace_id, key="heartbeat"))


def on_result_heartbeat(unit: UnitOfWork, event: Received) -> None:
    assert isinstance(event.fact, Heartbeat)
    _show_heartbeat(unit, "id_number", event.fact)


def on_notice_heartbeat(unit: UnitOfWork, event: Received) -> None:
    assert isinstance(event.fact, Heartbeat)
    _show_heartbeat(unit, "notify", event.fact)


def _show_heartbeat(unit: UnitOfWork, stage: str, fact: Heartbeat) -> None:
    unit.app.delivery.metrics.beat(stage, fact.sent_at)


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


def _needs_nothing_stored(event: Received) -> bool:
    """Whether no dossier has to be loaded: a notice's outcome changes none, and a dossier's first event has none."""
    return isinstance(event.fact, NoticeOutcome) or (isinstance(event.fact, DossierSubmitted) and event.sequence == 1)


def inbox(app: WorkflowApp) -> Inbox:
    """What is attached to the consumer: topics, the unit of work of a batch, and the handlers."""

    async def open_unit(tx: Tx, events: Sequence[Received]) -> UnitOfWork:
        new = [event.fact for event in events if isinstance(event.fact, DossierSubmitted)]
        concerned: set[UUID] = {
            event.dossier_id for event in events if event.dossier_id is not None and not _needs_nothing_stored(event)
        }
        catalogue = app.catalogue
        if any(catalogue.version(fact.procedure_code, fact.procedure_version) is None for fact in new):
            await catalogue.refresh(tx)
        needs = Needs(
            # The day of filing: a submission that is read after midnight was received on the day before.
            codes=Counter(AgencyDay.of(fact.receiving_agency, fact.office_at) for fact in new),
            procedures={fact.procedure_code for fact in new},
        )
        return await store.open_unit(tx, app, concerned, needs)

    return Inbox(TOPICS, open_unit, HANDLERS)
