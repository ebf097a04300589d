"""What idlookup is told: requests that workflow wants made. Stored and acknowledged; the callers do the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.consumer import Handler, Unappliable
from shared.envelope import Outgoing, Received, new_id
from shared.events import (
    IDNUMBER_REQUESTS,
    Fact,
    IdCheckWanted,
    IdNumberNoLongerWanted,
    IdNumberWanted,
    RequestHeartbeat,
    ResultHeartbeat,
)
from shared.sealed import Tampered
from shared.service import Listening, Service

from .store import RequestWork, kind_of

if TYPE_CHECKING:
    from shared.database import Tx

TOPICS = (IDNUMBER_REQUESTS,)


def on_wanted(work: RequestWork, event: Received) -> None:
    """The event's own id becomes the request's key."""
    assert event.fact is not None
    assert event.dossier_id is not None
    kind, sealed, name = kind_of(event.fact)
    try:
        work.service.sealer.open(event.dossier_id, name, sealed)
    except Tampered as broken:
        raise Unappliable("tampered", str(broken)) from broken
    work.wanted.append((event, kind, sealed))


def on_id_number_no_longer_wanted(work: RequestWork, event: Received) -> None:
    assert isinstance(event.fact, IdNumberNoLongerWanted)
    work.dropped.append(event.fact.request_key)


def on_request_heartbeat(work: RequestWork, event: Received) -> None:
    assert isinstance(event.fact, RequestHeartbeat)
    work.service.delivery.heartbeat.labels("identity_check").set(event.fact.sent_at.timestamp())
    onward = ResultHeartbeat(sent_at=event.fact.sent_at)
    work.extra.append(Outgoing(None, 0, onward, new_id(), event.trace_id, key="heartbeat"))


HANDLERS: dict[type[Fact], Handler] = {
    IdNumberWanted: on_wanted,
    IdCheckWanted: on_wanted,
    IdNumberNoLongerWanted: on_id_number_no_longer_wanted,
    RequestHeartbeat: on_request_heartbeat,
}


def listening(service: Service) -> Listening:
    async def open_work(_: Tx, __: Sequence[Received]) -> RequestWork:
        return RequestWork(service)

    return Listening(TOPICS, open_work, HANDLERS)
