"""Packs stored events and state records into the broker's batches, and sends them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from shared.contract.envelope import headers_of
from shared.kafka.internals import batch_builder
from shared.outbox.progress import Acknowledged
from shared.outbox.state_records import StateRecord

BATCH_BYTES = 900_000
"""Size of one batch before it is compressed; with its request it fits a broker's usual limit of 1,048,588 bytes."""
MIN_COMPRESSED = 50
"""Batches with at least so many records are compressed; for fewer, compressing costs more than it saves. Batches of
large records are not compressed, because a broker could then return more at once than fits into a reader's memory."""


def _wire(row: Any) -> tuple[bytes, bytes | None, list[tuple[str, bytes]], int | None]:
    """Key, value, headers and time (milliseconds since 1970) of an event's row or of a state record."""
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
    """A closed batch of the first of these rows, and how many rows it has: at least one, however large it is."""
    compress = len(rows) >= MIN_COMPRESSED and sum(map(_size, rows[:MIN_COMPRESSED])) < BATCH_BYTES
    batch = batch_builder(BATCH_BYTES, compress=compress)
    packed = 0
    for row in rows:
        # Row by row, because the headers of a whole chunk are very many small objects.
        key, value, headers, millis = _wire(row)
        if batch.append(key=key, value=value, timestamp=millis, headers=headers) is None:
            break
        packed += 1
    batch.close()
    return batch, packed


class Shortened(Exception):
    """The broker acknowledged an offset that is not above an earlier one, so it has lost acknowledged records."""


async def send(producer: Any, lane: int, rows: Mapping[str, Sequence[Any]]) -> tuple[Acknowledged, ...]:
    """Send the `rows` of one lane (topic -> events or states): the topics in parallel, the batches of a topic in turn.

    Returns the acknowledged offsets, one entry per topic. Raises Shortened and KafkaError.
    """
    acknowledged: dict[str, tuple[int, int]] = {}
    positions = dict.fromkeys(rows, 0)
    while positions:
        packed, sends = {}, []
        for topic, begin in positions.items():
            batch, packed[topic] = pack(rows[topic][begin:] if begin else rows[topic])
            sends.append(await producer.send_batch(batch, topic, partition=lane))
        for topic, done in zip(packed, await asyncio.gather(*sends), strict=True):
            if done.offset < 0:
                raise KafkaError("acknowledged without an offset: it is unknown whether the batch was stored")
            first, last = acknowledged.get(topic, (done.offset, -1))
            if done.offset <= last:
                raise Shortened(f"{topic}-{lane} acknowledged offset {done.offset} after {last}")
            acknowledged[topic] = first, done.offset + packed[topic] - 1
            positions[topic] += packed[topic]
        positions = {topic: begin for topic, begin in positions.items() if begin < len(rows[topic])}
    return tuple(Acknowledged(topic, lane, first, last) for topic, (first, last) in acknowledged.items())
