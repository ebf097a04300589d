"""Reads every record of every dossier from the broker, with its own client and its own parser of the headers.

It uses no consumer group, so it commits nothing and does not disturb the services. It reads all partitions of all
event topics from the oldest record to the end as it was at the start. Compacted topics are no event streams and are
left out.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from deploy.verify.notebook import Notebook

PRODUCERS = {
    "dossier.lifecycle.v1": "workflow",
    "internal.submissions.v1": "intake",
    "internal.idnumber-requests.v1": "workflow",
    "internal.idnumber-results.v1": "idlookup",
    "internal.notice-requests.v1": "workflow",
    "internal.notices.v1": "notify",
}
"""Event topic -> the only service that may publish there."""
TYPE = re.compile(r"vn\.hoso\.([A-Z][A-Za-z]*)\.v[0-9]+")
STALL_SECONDS = 15.0
QUIET_POLL_SECONDS = 0.3
MAX_EXTRA_SECONDS = 3.0


@dataclass
class Stream:
    """What was read from the broker. `complete`: whether the end was reached; if not, `trouble` gives the reason."""

    clusters: list[str] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)
    records: dict[str, int] = field(default_factory=dict)
    heartbeats: int = 0
    strangers: int = 0
    trimmed: set[str] = field(default_factory=set)
    """Partitions whose oldest records the broker has already deleted, as `dossier.lifecycle.v1/3`."""
    complete: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One event of one dossier, by its headers."""

    dossier: bytes
    sequence: int
    ce_id: bytes
    type: str


class ForeignRecord(ValueError):
    """A record that is not one of hoso's events. It is counted and listed, and is no part of the figures."""


def read_record(topic: str, key: bytes | None, headers: Any, value: bytes | None) -> Sighting | None:
    """Parse one record; None for a heartbeat. `headers`: (name, bytes) pairs. Raises ForeignRecord with the reason."""
    texts = _texts(headers)
    missing = [name for name in ("ce_id", "ce_source", "ce_type", "ce_subject", "ce_sequence") if name not in texts]
    if missing:
        raise ForeignRecord(f"no {', '.join(missing)}")
    if texts.get("ce_specversion") != "1.0":
        raise ForeignRecord("ce_specversion is not 1.0")
    if texts["ce_source"] != f"/hoso/{PRODUCERS.get(topic)}/{topic}":
        raise ForeignRecord("ce_source may not publish here")
    kind = TYPE.fullmatch(texts["ce_type"])
    if kind is None:
        raise ForeignRecord("ce_type is not hoso's")
    if kind[1].endswith("Heartbeat"):
        return None
    if key is None or key != texts["ce_subject"].encode():
        raise ForeignRecord("the key is not ce_subject")
    if not re.fullmatch(r"[0-9]{10}", texts["ce_sequence"], re.ASCII) or int(texts["ce_sequence"]) < 1:
        raise ForeignRecord("ce_sequence is not ten digits from 1")
    try:
        dossier, ce_id = UUID(texts["ce_subject"]), UUID(texts["ce_id"])
    except ValueError:
        raise ForeignRecord("ce_subject or ce_id is not a UUID") from None
    if value is None:
        raise ForeignRecord("no value")
    return Sighting(dossier.bytes, int(texts["ce_sequence"]), ce_id.bytes, kind[1])


def _texts(headers: Any) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, value in headers:
        if name in texts:
            raise ForeignRecord(f"the header {name} occurs twice")
        try:
            texts[name] = (value or b"").decode()
        except UnicodeDecodeError:
            raise ForeignRecord(f"the header {name} is not UTF-8") from None
    return texts


async def read_stream(notebook: Notebook, bootstrap: str, *, seconds: float | None = None) -> Stream:
    """Fill `sightings`, `codes`, `sent_notices` and `strangers`. `seconds` bounds the reading; None: until it stalls.

    When the broker is down or slow it does not raise: the result is not `complete`.
    """
    stream = Stream()
    deadline = time.monotonic() + seconds if seconds is not None else float("inf")
    try:
        before = await asyncio.wait_for(_describe(bootstrap), 20)
        stream.clusters.append(before.cluster_id)
        stream.topics = {at.topic for at in before.partitions}
        if before.partitions:
            await _read_all(notebook, bootstrap, before.partitions, stream, deadline)
        else:
            stream.complete = True
        after = await asyncio.wait_for(_describe(bootstrap), 20)
    except (KafkaError, OSError, TimeoutError) as error:
        stream.complete = False
        stream.trouble = f"the broker does not answer: {type(error).__name__}: {error}"
        return stream
    if after.cluster_id != before.cluster_id:
        stream.clusters.append(after.cluster_id)
        stream.complete = False
        stream.trouble = "the broker became another cluster while it was read"
    return stream


@dataclass(frozen=True)
class _Cluster:
    cluster_id: str
    partitions: list[TopicPartition]


async def _describe(bootstrap: str) -> _Cluster:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    await admin.start()
    try:
        cluster = await admin.describe_cluster()
        known = set(await admin.list_topics())
        topics = sorted(known & PRODUCERS.keys())
        described = await admin.describe_topics(topics) if topics else []
    finally:
        await admin.close()
    for topic in described:
        if topic["error_code"]:  # a starting broker; an unread partition must not pass for an empty one
            raise for_code(topic["error_code"])(topic["topic"])
    partitions = [
        TopicPartition(topic["topic"], number)
        for topic in described
        for number in sorted(partition["partition"] for partition in topic["partitions"])
    ]
    return _Cluster(str(cluster.get("cluster_id") or "unknown"), partitions)


async def _read_all(
    notebook: Notebook, bootstrap: str, partitions: list[TopicPartition], stream: Stream, deadline: float
) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    await consumer.start()
    try:
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        stream.trimmed = {f"{at.topic}/{at.partition}" for at, offset in begins.items() if offset > 0}
        await consumer.seek_to_beginning(*partitions)
        progress_at = time.monotonic()
        passed_at: float | None = None
        while True:
            # A broker may report the last batch's first record as the end. So the end is reached when every position is
            # past it and one more poll brings nothing, or others have kept publishing for a while.
            behind = [at for at in partitions if await consumer.position(at) < ends[at]]
            pages = await consumer.getmany(timeout_ms=int(QUIET_POLL_SECONDS * 1000), max_records=5_000)
            for at, records in pages.items():
                _note(notebook, at, records, stream)
            now = time.monotonic()
            if not behind:
                passed_at = passed_at or now
                if not pages or now - passed_at > MAX_EXTRA_SECONDS:
                    stream.complete = True
                    return
            if pages:
                progress_at = now
            if now > deadline or now - progress_at > STALL_SECONDS:
                names = ", ".join(f"{at.topic}/{at.partition}" for at in behind[:3])
                stream.trouble = f"the broker was not read to its end in time ({names or 'new records keep coming'})"
                return
    finally:
        await consumer.stop()


def _note(notebook: Notebook, at: TopicPartition, records: list[Any], stream: Stream) -> None:
    rows: dict[str, list[tuple[Any, ...]]] = {"sightings": [], "codes": [], "sent_notices": [], "strangers": []}
    for record in records:
        try:
            seen = read_record(at.topic, record.key, record.headers, record.value)
            if seen is None:
                stream.heartbeats += 1
                continue
            rows["sightings"].append((at.topic, seen.dossier, seen.sequence, seen.ce_id, at.partition, record.offset))
            for table, row in _read_content(seen, record.value):
                rows[table].append(row)
        except ForeignRecord as error:
            stream.strangers += 1
            rows["strangers"].append((at.topic, at.partition, record.offset, str(error)))
    stream.records[at.topic] = stream.records.get(at.topic, 0) + len(records)
    for table, found in rows.items():
        notebook.write(table, found)


def _read_content(seen: Sighting, value: bytes) -> list[tuple[str, tuple[Any, ...]]]:
    """Rows from the data of two types: the dossier's code, and which notice went out on which channel."""
    if seen.type not in ("DossierReceived", "NoticeSent"):
        return []
    try:
        data = json.loads(value)
        if seen.type == "DossierReceived":
            return [("codes", (seen.dossier, seen.sequence, str(data["dossier_code"])))]
        return [("sent_notices", (UUID(str(data["notice_id"])).bytes, str(data["channel"]), seen.ce_id))]
    except (ValueError, KeyError, TypeError):
        raise ForeignRecord(f"{seen.type} cannot be read") from None
