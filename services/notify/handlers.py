"""What notify consumes: wanted notices, and the heartbeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.notify import rules
from services.notify.app import NotifyApp
from services.notify.store import Notice, NoticeUnit
from shared.contract.envelope import Outgoing, Received, new_id
from shared.contract.events import NOTICE_REQUESTS, Fact, NoticeHeartbeat, NoticeRequestHeartbeat, NoticeWanted
from shared.inbox.consumer import Handler, Inbox, Unappliable
from shared.privacy.sealed import Tampered

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

TOPICS = (NOTICE_REQUESTS,)


def on_notice_wanted(unit: NoticeUnit, event: Received) -> None:
    """Add one row, on the best channel available. Another channel gets a row when this one fails.

    Raises Unappliable when the contact does not open for this dossier.
    """
    fact = event.fact
    assert isinstance(fact, NoticeWanted)
    assert event.dossier_id is not None
    try:
        contact = rules.read_contact(unit.open_contact(event.dossier_id, fact.sealed_contact))
    except Tampered as error:
        raise Unappliable("tampered", "the contact does not open for this dossier") from error
    unit.wanted.append(
        Notice(
            notice_id=event.ce_id,
            channel=rules.channels(contact, unit.available)[0],
            dossier_id=event.dossier_id,
            kind=fact.kind,
            cause=fact.cause,
            dossier_code=fact.dossier_code,
            national_status=fact.national_status,
            result_due_at=fact.due_at,
            receiving_agency=fact.receiving_agency,
            sealed_contact=fact.sealed_contact,
            trace_id=event.trace_id,
            wanted_at=event.recorded_at,
        )
    )


def on_notice_request_heartbeat(unit: NoticeUnit, event: Received) -> None:
    """Pass a heartbeat on to the topic of notices."""
    assert isinstance(event.fact, NoticeRequestHeartbeat)
    heartbeat = NoticeHeartbeat(sent_at=event.fact.sent_at)
    unit.outgoing.append(Outgoing(None, 0, heartbeat, new_id(), event.trace_id, key="heartbeat"))
    unit.heartbeats.append(event.fact.sent_at)


HANDLERS: dict[type[Fact], Handler] = {
    NoticeWanted: on_notice_wanted,
    NoticeRequestHeartbeat: on_notice_request_heartbeat,
}


def inbox(app: NotifyApp) -> Inbox:
    """The topics, the handlers, and the unit of work that they fill."""

    def open_contact(dossier_id: UUID, sealed: str) -> Any:
        return app.sealer.open(dossier_id, "contact", sealed)

    async def open_unit(_: Tx, __: object) -> NoticeUnit:
        return NoticeUnit(
            open_contact=open_contact,
            available=app.available,
            metrics=app.metrics,
            wake=app.sender.wake,
            heartbeat_seen=lambda sent_at: app.delivery.metrics.beat("notify", sent_at),
        )

    return Inbox(TOPICS, open_unit, HANDLERS)
