"""What idlookup consumes: requests that workflow wants made. They are stored; the workers do the rest."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from services.idlookup.app import IdlookupApp
from services.idlookup.sealed_fields import SEALED_AS
from services.idlookup.store import RequestUnit
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
    """The event's own id becomes the request's key."""
    assert isinstance(event.fact, IdNumberWanted)
    _want(unit, event, "issue", event.fact.sealed_subject)


def on_id_check_wanted(unit: RequestUnit, event: Received) -> None:
    assert isinstance(event.fact, IdCheckWanted)
    _want(unit, event, "verify", event.fact.sealed_person)


def _want(unit: RequestUnit, event: Received, kind: str, sealed: str) -> None:
    assert event.dossier_id is not None
    try:
        opened = unit.open_sealed(event.dossier_id, SEALED_AS[kind], sealed)
    except Tampered as changed:
        raise Unappliable("tampered", f"the {SEALED_AS[kind]} does not open for this dossier") from changed
    if not isinstance(opened, dict):
        raise Unappliable("malformed", f"the {SEALED_AS[kind]} is not an object")
    unit.wanted.append((event, kind, sealed))


def on_id_number_no_longer_wanted(unit: RequestUnit, event: Received) -> None:
    assert isinstance(event.fact, IdNumberNoLongerWanted)
    assert event.dossier_id is not None
    unit.dropped.append((event.dossier_id, event.fact.request_key))


def on_request_heartbeat(unit: RequestUnit, event: Received) -> None:
    assert isinstance(event.fact, RequestHeartbeat)
    onward = ResultHeartbeat(sent_at=event.fact.sent_at)
    unit.extra.append(Outgoing(None, 0, onward, new_id(), event.trace_id, key="heartbeat"))
    unit.heartbeats.append(event.fact.sent_at)


HANDLERS: dict[type[Fact], Handler] = {
    IdNumberWanted: on_id_number_wanted,
    IdCheckWanted: on_id_check_wanted,
    IdNumberNoLongerWanted: on_id_number_no_longer_wanted,
    RequestHeartbeat: on_request_heartbeat,
}


def inbox(app: IdlookupApp) -> Inbox:
    def heartbeat_seen(sent_at: datetime) -> None:
        app.delivery.metrics.beat("id_number", sent_at)

    async def open_unit(_: Tx, __: object) -> RequestUnit:
        return RequestUnit(open_sealed=app.sealer.open, wake=app.wake, heartbeat_seen=heartbeat_seen)

    return Inbox(TOPICS, open_unit, HANDLERS)
