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
"""Bytes of one record's value. A larger one is parked without being read."""
TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$")
NO_TRACE = UUID(int=0)
HEARTBEATS = frozenset(kind for kind in EVENT_TYPES.values() if issubclass(kind, Heartbeat))
LATEST_MS = 4_102_444_800_000
"""The year 2100. A record that is not ours may claim a time that no datetime can hold."""


def uuid_of(text_or_bytes: AnyStr) -> UUID:
    """An id from its text or its 16 bytes, as asyncpg's own subclass: quicker to make, write and hash.

    Raises ValueError.
    """
    uuid: UUID = QuickUUID(text_or_bytes)
    return uuid


_tails: list[bytes] = []
"""The last 10 bytes of ids not used yet. One call to the system's random source fetches many."""


def _refill() -> None:
    octets = bytearray(os.urandom(10 * 512))
    for at in range(0, len(octets), 10):
        octets[at] = octets[at] & 0x0F | 0x70  # version 7
        octets[at + 2] = octets[at + 2] & 0x3F | 0x80  # the variant of RFC 9562
    _tails.extend(bytes(octets[at : at + 10]) for at in range(0, len(octets), 10))


os.register_at_fork(after_in_child=_tails.clear)  # a child must not repeat its parent's ids


def new_id() -> UUID:
    """A UUIDv7: 48 bits of milliseconds, then random bits. Later ids sort after earlier ones, to the millisecond."""
    try:
        tail = _tails.pop()
    except IndexError:
        _refill()
        tail = _tails.pop()
    return uuid_of((time.time_ns() // 1_000_000).to_bytes(6, "big") + tail)


def trace_of(traceparent: str | None) -> UUID:
    """The trace id inside a W3C `traceparent`, or a new one."""
    match = TRACEPARENT.match(traceparent or "")
    return uuid_of(match.group(1)) if match and match.group(1).strip("0") else new_id()


def fingerprint(ce_id: UUID) -> int:
    """The last 4 bytes of an id as a signed integer: the table `heads` keeps one per applied event."""
    return int.from_bytes(ce_id.bytes[12:], "big", signed=True)


class Outgoing(NamedTuple):
    """A fact to append to the outbox. `sequence` comes from a row the caller locked; `key` only without a dossier."""

    dossier_id: UUID | None
    sequence: int
    fact: Fact
    ce_id: UUID
    trace_id: UUID = NO_TRACE
    key: str | None = None


class Record(NamedTuple):
    """A Kafka record as it was read, before anything in it is checked."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes | None
    sent_at: datetime

    def digest(self) -> bytes:
        """A hash of headers, key and value: equal at every offset, so that a re-sent bad record is parked once."""
        sha = hashlib.sha256()
        for name, value in self.headers:
            sha.update(f"{len(name)}:{name}:{len(value or b'')}:".encode("utf-8", "surrogateescape") + (value or b""))
        sha.update(b"|%d|" % len(self.key or b"") + (self.key or b"") + b"|" + (self.value or b""))
        return sha.digest()


class StreamKey(NamedTuple):
    """One stream of events with sequences of its own: those of one dossier on one topic."""

    topic: str
    dossier_id: UUID


class Received(NamedTuple):
    """A record with a valid envelope. `defect` says why its content cannot be used; `fact` is None then."""

    record: Record
    stream: StreamKey | None
    """None for compacted topics and heartbeats: they are outside the order of a dossier."""
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


class Malformed(ValueError):
    """The record belongs to no sequence: it is parked and holds up nothing."""

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
    """The record's headers. `type` is the fact's class name; the span id is the last half of the event id."""
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
    """The event in CloudEvents' JSON form, for the HTTP feed: the same id, source, type, time and sequence."""
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


def _rfc3339(at: datetime) -> bytes:
    """In UTC with Z."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return orjson.dumps(at, option=orjson.OPT_UTC_Z)[1:-1]  # quicker than isoformat


def parse(record: Record) -> Received:
    """Check a record's envelope, then its content. Raises Malformed when the envelope is not valid."""
    headers = dict(record.headers)
    try:
        ce_id = uuid_of(headers["ce_id"].decode())
        source, ce_type, subject = (headers[name].decode() for name in ("ce_source", "ce_type", "ce_subject"))
        digits = headers["ce_sequence"].decode()
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
            raise ValueError("ce_sequence is not a number")
        sequence = int(digits)
        recorded_at = datetime.fromisoformat(headers["ce_time"].decode())
        if recorded_at.tzinfo is not UTC:
            if recorded_at.tzinfo is None:
                raise ValueError("ce_time has no zone")
            recorded_at = recorded_at.astimezone(UTC)
        key = (record.key or b"").decode()
    except (KeyError, ValueError, OverflowError, AttributeError) as error:  # AttributeError: a header without a value
        raise Malformed("no-envelope", f"{type(error).__name__}: {error}"[:300]) from None
    if record.topic not in PRODUCER or source != source_of(record.topic):
        raise Malformed("unknown-source", f"{source[:200]} may not publish on {record.topic}")
    if key != subject:
        raise Malformed("key-mismatch", "the record's key is not its subject")
    kind = EVENT_TYPES.get(ce_type)
    unsequenced = record.topic in COMPACTED or kind in HEARTBEATS
    stream = dossier_id = None
    if not unsequenced:
        dossier_id = _dossier_id(subject)
        stream = StreamKey(record.topic, dossier_id)
        if not 1 <= sequence < 2**31:
            raise Malformed("no-envelope", "a sequence begins at 1")
    fact, defect, detail = _content(record, kind, ce_type)
    if defect and unsequenced:
        raise Malformed(defect, detail)
    trace_id = trace_of((headers.get("traceparent") or b"").decode("ascii", "replace"))
    name = kind.__name__ if kind else ce_type[:100]
    return Received(record, stream, dossier_id, sequence, ce_id, trace_id, recorded_at, name, fact, defect, detail)


def _dossier_id(subject: str) -> UUID:
    # Only the spelling that partitions are computed from: another one would put the same dossier on two partitions.
    try:
        if str(dossier_id := uuid_of(subject)) == subject:
            return dossier_id
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
    except ValidationError as error:
        # Only where it is wrong: the value may be personal data.
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in error.errors(include_input=False)[:5])
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
