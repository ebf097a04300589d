"""A chunk of events is packed into batches for the broker: complete, in order, and compressed when it is long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.default_records import DefaultRecordBatch

from shared.contract.envelope import new_id
from shared.contract.events import NOTICES, SUBMISSIONS
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import ensure_topics
from shared.outbox.batches import MIN_COMPRESSED, Shortened, pack, send
from tests.fixtures.waiting import wait_until


def rows(count: int, size: int = 200) -> list[dict[str, Any]]:
    """Events as the relay reads them from the log."""
    return [
        {
            "topic": SUBMISSIONS,
            "dossier_id": new_id(),
            "key": None,
            "sequence": number + 1,
            "ce_id": new_id(),
            "type": "DossierSubmitted",
            "trace_id": new_id(),
            "data": b'{"text":"' + b"x" * size + b'"}',
            "recorded_at": datetime.now(UTC),
        }
        for number in range(count)
    ]


def bytes_of(events: list[dict[str, Any]]) -> bytes:
    return bytes(pack(events)[0]._build())


def test_a_long_batch_is_compressed_and_holds_the_same_records() -> None:
    events = rows(MIN_COMPRESSED)
    packed = bytes_of(events)
    batch = DefaultRecordBatch(packed)
    assert batch.compression_type == DefaultRecordBatch.CODEC_ZSTD
    assert len(packed) < len(bytes_of(events[1:])) / 3
    assert [one.value for one in batch] == [event["data"] for event in events]


def test_a_short_batch_is_not_compressed() -> None:
    assert DefaultRecordBatch(bytes_of(rows(MIN_COMPRESSED - 1))).compression_type == DefaultRecordBatch.CODEC_NONE


def test_large_records_are_not_compressed_even_if_there_are_many() -> None:
    assert DefaultRecordBatch(bytes_of(rows(MIN_COMPRESSED, 20_000))).compression_type == DefaultRecordBatch.CODEC_NONE


async def test_an_offset_acknowledged_twice_within_a_chunk_is_a_loss(
    producer: AIOKafkaProducer, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log became shorter between the two batches: the first one is lost, and only the offset shows it."""
    await ensure_topics(kafka)
    send_batch, offsets = producer.send_batch, list[int]()

    async def shortened(batch: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
        done = await (await send_batch(batch, topic, partition=partition))
        offsets.append(done.offset)
        result = asyncio.get_running_loop().create_future()
        result.set_result(done._replace(offset=offsets[0]))
        return result

    monkeypatch.setattr(producer, "send_batch", shortened)
    with pytest.raises(Shortened, match=f"{SUBMISSIONS}-3 acknowledged offset"):
        await send(producer, 3, {SUBMISSIONS: rows(60, 17_000)})
    assert len(offsets) == 2


async def test_a_chunk_of_several_batches_arrives_complete_and_in_order(
    producer: AIOKafkaProducer, kafka: KafkaSettings
) -> None:
    """Sixty records of 17 kB are too large for one batch. Another topic has two records in the same chunk."""
    await ensure_topics(kafka)
    lane, events = 3, rows(60, 17_000)
    others = rows(2)
    marks = {topic: mark for topic, *mark in await send(producer, lane, {SUBMISSIONS: events, NOTICES: others})}
    assert {topic: (mark[0], mark[2] - mark[1]) for topic, mark in marks.items()} == {
        SUBMISSIONS: (lane, 59),
        NOTICES: (lane, 1),
    }
    first = marks[SUBMISSIONS][1]
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.servers, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(SUBMISSIONS, lane)])
        consumer.seek(TopicPartition(SUBMISSIONS, lane), first)
        received: list[Any] = []

        async def all_there() -> bool:
            for some in (await consumer.getmany(timeout_ms=200)).values():
                received.extend(some)
            return len(received) >= len(events)

        await wait_until(all_there, 20, what="sixty records")
    finally:
        await consumer.stop()
    assert [(row.offset - first, row.key) for row in received] == [
        (at, str(event["dossier_id"]).encode()) for at, event in enumerate(events)
    ]
