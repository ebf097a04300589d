"""What notify listens to: the wishes to tell somebody something, and the heartbeat."""

from __future__ import annotations

from services.notify import rules
from services.notify.store import Notice, NoticeWork
from shared.contract.envelope import Received, new_id
from shared.contract.events import NOTICE_REQUESTS, Fact, NoticeRequestHeartbeat, NoticeWanted
from shared.inbox.consumer import Handler, Unappliable
from shared.privacy.sealed import Tampered

TOPICS = (NOTICE_REQUESTS,)


def on_notice_wanted(work: NoticeWork, event: Received) -> None:
    """One row on the best channel there is; another channel gets its row when this one has failed."""
    fact = event.fact
    assert isinstance(fact, NoticeWanted)
    assert event.dossier_id is not None
    try:
        contact = rules.read_contact(work.open_contact(event.dossier_id, fact.sealed_contact))
    except Tampered as changed:
        raise Unappliable("tampered", "the contact does not open for this dossier") from changed
    work.wanted.append(
        Notice(
            notice_id=event.ce_id,
            channel=rules.channels(contact, work.available)[0],
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


def on_notice_request_heartbeat(work: NoticeWork, event: Received) -> None:
    fact = event.fact
    assert isinstance(fact, NoticeRequestHeartbeat)
    work.heartbeats.append((fact.sent_at, new_id(), event.trace_id))


HANDLERS: dict[type[Fact], Handler] = {
    NoticeWanted: on_notice_wanted,
    NoticeRequestHeartbeat: on_notice_request_heartbeat,
}
