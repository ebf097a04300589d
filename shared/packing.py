"""Stored events and built states as the broker's records, packed into batches and sent in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import KafkaError

from shared.envelope import headers_of


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A record for a compacted topic, built from the current row when sent; never stored."""

    topic: str
    key: str
    headers: list[tuple[str, bytes]]
    value: bytes | None


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


async def send_rows(producer: Any, topic: str, lane: int, rows: Sequence[Any]) -> tuple[str, int, int, int]:
    """(topic, partition, first offset, last offset) of what the broker acknowledged."""
    first, at = -1, 0
    offset = -1
    while at < len(rows):
        batch = producer.create_batch()
        begin = at
        while at < len(rows):
            # Each is packed at once: a whole chunk's headers would be a quarter of a million small objects.
            key, value, headers, millis = _wire(rows[at])
            if batch.append(key=key, value=value, timestamp=millis, headers=headers) is None:
                break
            at += 1
        if at == begin:
            raise ValueError("one record is larger than a batch may be")
        batch.close()
        done = await (await producer.send_batch(batch, topic, partition=lane))
        if done.offset < 0:
            raise KafkaError("acknowledged without an offset: what became of it is unknown")
        first = done.offset if first < 0 else first
        offset = done.offset + (at - begin) - 1
    return topic, lane, first, offset
