"""Records for the tests of delivery, valid and invalid, as a consumer reads them from the broker."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID, uuid4

from shared.contract.envelope import Received, Record, headers_of, new_id, parse
from shared.contract.events import SUBMISSIONS, Fact, WithdrawalRequested
from shared.contract.partitions import lane_of

NOON = datetime(2026, 2, 13, 12, 0, tzinfo=UTC)
_offsets = itertools.count()


def withdrawal(note: str = "") -> WithdrawalRequested:
    """A fact whose only content is `note`."""
    return WithdrawalRequested(office_at=NOON, sealed_reason=note)


def record(
    dossier_id: UUID,
    sequence: int,
    note: str = "",
    *,
    fact: Fact | None = None,
    ce_id: UUID | None = None,
    topic: str = SUBMISSIONS,
    type: str | None = None,
    key: bytes | None = None,
    value: bytes | None = None,
    headers: Mapping[str, bytes | None] | None = None,
) -> Record:
    """A record with an event of a dossier. `headers` replaces single headers; None removes one."""
    content = fact or withdrawal(note)
    envelope = dict(
        headers_of(
            topic=topic,
            subject=str(dossier_id),
            sequence=sequence,
            ce_id=ce_id or new_id(),
            type=type or content.__class__.__name__,
            trace_id=new_id(),
            recorded_at=NOON,
        )
    )
    for name, changed in (headers or {}).items():
        if changed is None:
            envelope.pop(name, None)
        else:
            envelope[name] = changed
    return Record(
        topic=topic,
        partition=lane_of(str(dossier_id)),
        offset=next(_offsets),
        key=str(dossier_id).encode() if key is None else key,
        headers=tuple(envelope.items()),
        value=content.model_dump_json().encode() if value is None else value,
        sent_at=NOON,
    )


def received(dossier_id: UUID, sequence: int, note: str = "", *, ce_id: UUID | None = None) -> Received:
    """The same record, parsed."""
    return parse(record(dossier_id, sequence, note, ce_id=ce_id))


def foreign_record(note: str = "hello", **headers: bytes) -> Record:
    """A record that no service of hoso has written."""
    return Record(SUBMISSIONS, 0, next(_offsets), str(uuid4()).encode(), tuple(headers.items()), note.encode(), NOON)
