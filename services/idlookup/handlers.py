"""What idlookup is told: requests that workflow wants made. Stored and acknowledged; the callers do the rest."""

from __future__ import annotations

from services.idlookup.store import RequestWork
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
from shared.inbox.consumer import Handler, Unappliable
from shared.privacy.sealed import Tampered

TOPICS = (IDNUMBER_REQUESTS,)
SEALED_AS = {"issue": "subject", "verify": "person"}
"""kind -> the field name its personal data were sealed under."""


def on_id_number_wanted(work: RequestWork, event: Received) -> None:
    """The event's own id becomes the request's key."""
    assert isinstance(event.fact, IdNumberWanted)
    _want(work, event, "issue", event.fact.sealed_subject)


def on_id_check_wanted(work: RequestWork, event: Received) -> None:
    assert isinstance(event.fact, IdCheckWanted)
    _want(work, event, "verify", event.fact.sealed_person)


def _want(work: RequestWork, event: Received, kind: str, sealed: str) -> None:
    assert event.dossier_id is not None
    try:
        opened = work.open_sealed(event.dossier_id, SEALED_AS[kind], sealed)
    except Tampered as changed:
        raise Unappliable("tampered", f"the {SEALED_AS[kind]} does not open for this dossier") from changed
    if not isinstance(opened, dict):
        raise Unappliable("malformed", f"the {SEALED_AS[kind]} is not an object")
    work.wanted.append((event, kind, sealed))


def on_id_number_no_longer_wanted(work: RequestWork, event: Received) -> None:
    assert isinstance(event.fact, IdNumberNoLongerWanted)
    assert event.dossier_id is not None
    work.dropped.append((event.dossier_id, event.fact.request_key))


def on_request_heartbeat(work: RequestWork, event: Received) -> None:
    assert isinstance(event.fact, RequestHeartbeat)
    onward = ResultHeartbeat(sent_at=event.fact.sent_at)
    work.extra.append(Outgoing(None, 0, onward, new_id(), event.trace_id, key="heartbeat"))
    work.heartbeats.append(event.fact.sent_at)


HANDLERS: dict[type[Fact], Handler] = {
    IdNumberWanted: on_id_number_wanted,
    IdCheckWanted: on_id_check_wanted,
    IdNumberNoLongerWanted: on_id_number_no_longer_wanted,
    RequestHeartbeat: on_request_heartbeat,
}
