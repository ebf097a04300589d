"""The envelope around a fact: CloudEvents 1.0 in Kafka's binary mode, and the same fact in the HTTP feed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, AnyStr, NamedTuple
from uuid import UUID

import orjson
from asyncpg.pgproto.pgproto import UUID as QuickUUID
from pydantic import ValidationError

from shared.contract.events import COMPACTED, EVENT_TYPES, PRODUCER, Fact, Heartbeat

MAX_VALUE = 900_000
"""Bytes of one record's value; a larger one is parked unread."""
TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$")
NO_TRACE = UUID(int=0)
HEARTBEATS = frozenset(kind for kind in EVENT_TYPES.values() if issubclass(kind, Heartbeat))
LATEST_MS = 4_102_444_800_000
"""The year 2100: a stranger's record may claim a time that no datetime can hold."""


def uuid_of(said: AnyStr) -> UUID:
    """An id from its text or its 16 bytes: asyncpg's own subclass, which is ten times as quick to make, write and hash.

    Raises ValueError.
    """
    made: UUID = QuickUUID(said)
    return made


_tails: list[bytes] = []
"""The last 10 bytes of ids not used yet: the system's own randomness, fetched for many in one call."""


def _refill() -> None:
    some = bytearray(os.urandom(10 * 512))
    for at in range(0, len(some), 10):
        some[at] = some[at] & 0x0F | 0x70  # version 7
        some[at + 2] = some[at + 2] & 0x3F | 0x80  # the variant of RFC 9562
    _tails.extend(bytes(some[at : at + 10]) for at in range(0, len(some), 10))


os.register_at_fork(after_in_child=_tails.clear)  # a child must not repeat its parent's ids


def new_id() -> UUID:
    """A UUIDv7: 48 bits of milliseconds, then random. Ids made one after the other sort almost in order."""
    try:
        tail = _tails.pop()
    except IndexError:
        _refill()
        tail = _tails.pop()
    return uuid_of((time.time_ns() // 1_000_000).to_bytes(6, "big") + tail)


def trace_of(traceparent: str | None) -> UUID:
    """The trace id inside a W3C `traceparent`, or a new one."""
    found = TRACEPARENT.match(traceparent or "")
    return uuid_of(found.group(1)) if found and found.group(1).strip("0") else new_id()


def fingerprint(ce_id: UUID) -> int:
    """The last 4 bytes of an id as a signed integer: what `heads` keeps of each applied event."""
    return int.from_bytes(ce_id.bytes[12:], "big", signed=True)


class Outgoing(NamedTuple):
    """A fact about to be staged. `sequence` comes from the caller's own locked row; `key` only without a dossier."""

    dossier_id: UUID | None
    sequence: int
    fact: Fact
    ce_id: UUID
    trace_id: UUID = NO_TRACE
    key: str | None = None


class Record(NamedTuple):
    """A Kafka record as it lay in the log, before anybody believed it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes | None
    sent_at: datetime

    def digest(self) -> bytes:
        """Equal for the same record wherever it lies: what keeps a re-sent poison from being parked twice."""
        whole = hashlib.sha256()
        for name, value in self.headers:
            whole.update(f"{len(name)}:{name}:{len(value or b'')}:".encode("utf-8", "surrogateescape") + (value or b""))
        whole.update(b"|%d|" % len(self.key or b"") + (self.key or b"") + b"|" + (self.value or b""))
        return whole.digest()


class Received(NamedTuple):
    """A record whose envelope is ours. `defect` says why its content cannot be used; then `fact` is None."""

    record: Record
    dossier_id: UUID | None
    sequence: int
    ce_id: UUID
    trace_id: UUID
    recorded_at: datetime
    type: str
    fact: Fact | None
    defect: str = ""
    detail: str = ""

    @property
    def topic(self) -> str:
        return self.record.topic

    @property
    def sequenced(self) -> bool:
        """False for compacted topics and heartbeats: they have no place in a dossier's order."""
        return self.dossier_id is not None


class Malformed(ValueError):
    """The record has no place in any sequence: it is parked and blocks nobody."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def source_of(topic: str) -> str:
    return SOURCES[topic]


SOURCES = {topic: f"/hoso/{producer}/{topic}" for topic, producer in PRODUCER.items()}
SOURCE_HEADERS = {topic: ("ce_source", source.encode()) for topic, source in SOURCES.items()}
SPECVERSION, CONTENT_TYPE = ("ce_specversion", b"1.0"), ("content-type", b"application/json")


def headers_of(
    *, topic: str, subject: str, sequence: int, ce_id: UUID, type: str, trace_id: UUID, recorded_at: datetime
) -> list[tuple[str, bytes]]:
    """The record's headers. `type` is the fact's class name; the span id is the event id's own last half."""
    return [
        SPECVERSION,
        ("ce_id", str(ce_id).encode()),
        SOURCE_HEADERS[topic],
        ("ce_type", f"vn.hoso.{type}.v1".encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", _rfc3339(recorded_at)),
        ("ce_sequence", b"%010d" % sequence),
        CONTENT_TYPE,
        ("traceparent", f"00-{trace_id.hex}-{ce_id.hex[16:]}-01".encode()),
    ]


def cloud_event(
    *,
    topic: str,
    subject: str,
    sequence: int,
    ce_id: UUID,
    type: str,
    trace_id: UUID,
    recorded_at: datetime,
    data: bytes,
) -> dict[str, Any]:
    """The same event in CloudEvents' JSON form, for the HTTP feed: same id, source, type, time and sequence."""
    return {
        "specversion": "1.0",
        "id": str(ce_id),
        "source": source_of(topic),
        "type": f"vn.hoso.{type}.v1",
        "subject": subject,
        "time": _rfc3339(recorded_at).decode(),
        "sequence": f"{sequence:010d}",
        "datacontenttype": "application/json",
        "traceparent": f"00-{trace_id.hex}-{ce_id.hex[16:]}-01",
        "data": json.loads(data),
    }


def _rfc3339(moment: datetime) -> bytes:
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return orjson.dumps(moment, option=orjson.OPT_UTC_Z)[1:-1]  # five times as quick as isoformat


def parse(record: Record) -> Received:
    """Believe a record's envelope, then its content. Raises Malformed when even the envelope is not ours."""
    said = dict(record.headers)
    try:
        ce_id = uuid_of(said["ce_id"].decode())
        source, ce_type, subject = (said[name].decode() for name in ("ce_source", "ce_type", "ce_subject"))
        digits = said["ce_sequence"].decode()
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
            raise ValueError("ce_sequence is not a number")
        sequence = int(digits)
        recorded_at = datetime.fromisoformat(said["ce_time"].decode())
        if recorded_at.tzinfo is not UTC:
            if recorded_at.tzinfo is None:
                raise ValueError("ce_time has no zone")
            recorded_at = recorded_at.astimezone(UTC)
        key = (record.key or b"").decode()
    except (KeyError, ValueError, OverflowError, AttributeError) as wrong:  # AttributeError: a header without a value
        raise Malformed("no-envelope", f"{type(wrong).__name__}: {wrong}"[:300]) from None
    if record.topic not in PRODUCER or source != source_of(record.topic):
        raise Malformed("unknown-source", f"{source[:200]} may not speak on {record.topic}")
    if key != subject:
        raise Malformed("key-mismatch", "the record's key is not its subject")
    kind = EVENT_TYPES.get(ce_type)
    free = record.topic in COMPACTED or kind in HEARTBEATS
    dossier_id = None
    if not free:
        dossier_id = _dossier_id(subject)
        if not 1 <= sequence < 2**31:
            raise Malformed("no-envelope", "a sequence begins at 1")
    fact, defect, detail = _content(record, kind, ce_type)
    if defect and free:
        raise Malformed(defect, detail)
    trace_id = trace_of((said.get("traceparent") or b"").decode("ascii", "replace"))
    name = kind.__name__ if kind else ce_type[:100]
    return Received(record, dossier_id, sequence, ce_id, trace_id, recorded_at, name, fact, defect, detail)


def _dossier_id(subject: str) -> UUID:
    # Only the one spelling that lanes are computed from: another would be the same dossier on two partitions.
    try:
        if str(found := uuid_of(subject)) == subject:
            return found
    except ValueError:
        pass
    raise Malformed("no-envelope", "the subject is not a dossier id")


def _content(record: Record, kind: type[Fact] | None, ce_type: str) -> tuple[Fact | None, str, str]:
    if kind is None:
        return None, "unknown-type", f"{ce_type[:100]} is not in shared/contract/events.py: deploy consumers first"
    if kind.topic != record.topic:
        return None, "wrong-topic", f"{kind.__name__} belongs on {kind.topic}"
    value = record.value or b""
    if len(value) > MAX_VALUE:
        return None, "oversized", f"{len(value)} bytes"
    try:
        return kind.model_validate_json(value), "", ""
    except ValidationError as wrong:
        # Say where, never what: the value may be personal data.
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in wrong.errors(include_input=False)[:5])
        return None, "schema", where[:500]


def records_from(rows: Sequence[Any]) -> list[Record]:
    """aiokafka's consumer records as our own."""
    return [
        Record(
            row.topic,
            row.partition,
            row.offset,
            row.key,
            tuple(row.headers),
            row.value,
            datetime.fromtimestamp(min(max(row.timestamp or 0, 0), LATEST_MS) / 1000, UTC),
        )
        for row in rows
    ]
