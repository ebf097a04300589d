"""What idlookup consumes: workflow's requests. They are only stored; the workers call the registry."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from services.idlookup.app import IdlookupApp
from services.idlookup.sealed_fields import SEALED_AS
from services.idlookup.store import DroppedRequest, RequestUnit, WantedRequest
from shared.contract.envelope import Outgoing, Received, new_id
from shared.contract.events import (
    IDNUMBER_REQUESTS,
    Fact,
    IdCheckWanted,
    IdNumberNoLongerWanted,
    IdNumberWanted,
    RequestHeartbeat,
    ResultHeartbeat,
)
from shared.inbox.consumer import Handler, Inbox, Unappliable
from shared.privacy.sealed import Tampered

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

TOPICS = (IDNUMBER_REQUESTS,)


def on_id_number_wanted(unit: RequestUnit, event: Received) -> None:
    """Store a request for a number. The event's id is the request's key."""
    assert isinstance(event.fact, IdNumberWanted)
    _add_wanted(unit, event, "issue", event.fact.sealed_subject)


def on_id_check_wanted(unit: RequestUnit, event: Received) -> None:
    """Store a request for a check. The event's id is the request's key."""
    assert isinstance(event.fact, IdCheckWanted)
    _add_wanted(unit, event, "verify", event.fact.sealed_person)


def _add_wanted(unit: RequestUnit, event: Received, kind: str, sealed: str) -> None:
    """Raises Unappliable when the sealed data do not open for this dossier, or are not an object."""
    assert event.dossier_id is not None
    try:
        opened = unit.open_sealed(event.dossier_id, SEALED_AS[kind], sealed)
    except Tampered as error:
        raise Unappliable("tampered", f"the {SEALED_AS[kind]} does not open for this dossier") from error
    if not isinstance(opened, dict):
        raise Unappliable("malformed", f"the {SEALED_AS[kind]} is not an object")
    unit.wanted.append(WantedRequest(event, kind, sealed))


def on_id_number_no_longer_wanted(unit: RequestUnit, event: Received) -> None:
    """Mark a request as no longer wanted."""
    assert isinstance(event.fact, IdNumberNoLongerWanted)
    assert event.dossier_id is not None
    unit.dropped.append(DroppedRequest(event.dossier_id, event.fact.request_key))


def on_request_heartbeat(unit: RequestUnit, event: Received) -> None:
    """Pass a heartbeat on to the results' topic."""
    assert isinstance(event.fact, RequestHeartbeat)
    heartbeat = ResultHeartbeat(sent_at=event.fact.sent_at)
    unit.outgoing.append(Outgoing(None, 0, heartbeat, new_id(), event.trace_id, key="heartbeat"))
    unit.heartbeats.append(event.fact.sent_at)


HANDLERS: dict[type[Fact], Handler] = {
    IdNumberWanted: on_id_number_wanted,
    IdCheckWanted: on_id_check_wanted,
    IdNumberNoLongerWanted: on_id_number_no_longer_wanted,
    RequestHeartbeat: on_request_heartbeat,
}


def inbox(app: IdlookupApp) -> Inbox:
    """The topics, the handlers, and the unit of work that they fill."""

    def heartbeat_seen(sent_at: datetime) -> None:
        app.delivery.metrics.beat("id_number", sent_at)

    async def open_unit(_: Tx, __: object) -> RequestUnit:
        return RequestUnit(open_sealed=app.sealer.open, wake=app.wake, heartbeat_seen=heartbeat_seen)

    return Inbox(TOPICS, open_unit, HANDLERS)
