"""Stored events and built states as the broker's records, packed into batches and sent in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from shared.contract.envelope import headers_of
from shared.kafka.internals import batch_builder
from shared.outbox.state_records import StateRecord

BATCH_BYTES = 900_000
"""Of one batch before it is compressed; with its request it fits a broker's usual limit of 1,048,588."""
MANY = 50
"""Records from which on a batch is compressed: they repeat each other, a few would cost more than they save. Large ones
are not, however many: unpacked, what a broker hands out at once would fill the memory."""


def _wire(row: Any) -> tuple[bytes, bytes | None, list[tuple[str, bytes]], int | None]:
    """(key, value, headers, milliseconds since 1970) of an event's row or of a state."""
    if isinstance(row, StateRecord):
        return row.key.encode(), row.value, row.headers, None
    subject = str(row["dossier_id"]) if row["dossier_id"] is not None else row["key"]
    headers = headers_of(
        topic=row["topic"],
        subject=subject,
        sequence=row["sequence"],
        ce_id=row["ce_id"],
        type=row["type"],
        trace_id=row["trace_id"],
        recorded_at=row["recorded_at"],
    )
    return subject.encode(), row["data"], headers, int(row["recorded_at"].timestamp() * 1000)


def _size(row: Any) -> int:
    return len((row.value if isinstance(row, StateRecord) else row["data"]) or b"")


def pack(rows: Sequence[Any]) -> tuple[BatchBuilder, int]:
    """A closed batch of the first of these events and states, and how many it holds: one at least, however large."""
    many = len(rows) >= MANY and sum(map(_size, rows[:MANY])) < BATCH_BYTES
    batch = batch_builder(BATCH_BYTES, compress=many)
    packed = 0
    for row in rows:
        # Each is packed at once: a whole chunk's headers would be a quarter of a million small objects.
        key, value, headers, millis = _wire(row)
        if batch.append(key=key, value=value, timestamp=millis, headers=headers) is None:
            break
        packed += 1
    batch.close()
    return batch, packed


class Shortened(Exception):
    """The broker gave an offset that it had given before: what it had acknowledged in between is gone."""


async def send(producer: Any, lane: int, rows: Mapping[str, Sequence[Any]]) -> tuple[tuple[str, int, int, int], ...]:
    """Send one lane's rows, topic -> rows: of each topic one batch after the other, topics side by side.

    For each topic (topic, partition, first offset, last offset) of what the broker acknowledged. Raises Shortened.
    """
    acknowledged: dict[str, tuple[int, int]] = {}
    at = dict.fromkeys(rows, 0)
    while at:
        packed, coming = {}, []
        for topic, begin in at.items():
            batch, packed[topic] = pack(rows[topic][begin:] if begin else rows[topic])
            coming.append(await producer.send_batch(batch, topic, partition=lane))
        for topic, done in zip(packed, await asyncio.gather(*coming), strict=True):
            if done.offset < 0:
                raise KafkaError("acknowledged without an offset: what became of it is unknown")
            first, last = acknowledged.get(topic, (done.offset, -1))
            if done.offset <= last:
                raise Shortened(f"{topic}-{lane} acknowledged offset {done.offset} after {last}")
            acknowledged[topic] = first, done.offset + packed[topic] - 1
            at[topic] += packed[topic]
        at = {topic: begin for topic, begin in at.items() if begin < len(rows[topic])}
    return tuple((topic, lane, first, last) for topic, (first, last) in acknowledged.items())
