"""A chunk becomes the broker's batches: complete, in order, and compressed when it is long."""

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
            "data": b'{"said":"' + b"x" * size + b'"}',
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


def test_a_short_batch_is_sent_as_it_is() -> None:
    assert DefaultRecordBatch(bytes_of(rows(MIN_COMPRESSED - 1))).compression_type == DefaultRecordBatch.CODEC_NONE


def test_large_records_are_sent_as_they_are_however_many() -> None:
    assert DefaultRecordBatch(bytes_of(rows(MIN_COMPRESSED, 20_000))).compression_type == DefaultRecordBatch.CODEC_NONE


async def test_an_offset_given_before_between_two_batches_of_a_chunk_is_a_loss(
    producer: AIOKafkaProducer, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log became shorter between the two batches: the first one is lost, and only the offset shows it."""
    await ensure_topics(kafka)
    hand_in, given = producer.send_batch, list[int]()

    async def shortened(batch: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
        done = await (await hand_in(batch, topic, partition=partition))
        given.append(done.offset)
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(done._replace(offset=given[0]))
        return answer

    monkeypatch.setattr(producer, "send_batch", shortened)
    with pytest.raises(Shortened, match=f"{SUBMISSIONS}-3 acknowledged offset"):
        await send(producer, 3, {SUBMISSIONS: rows(60, 17_000)})
    assert len(given) == 2


async def test_a_chunk_of_several_batches_arrives_whole_and_in_order(
    producer: AIOKafkaProducer, kafka: KafkaSettings
) -> None:
    """Sixty records of 17 kB are more than one batch may hold. Beside them a topic with two records."""
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
        heard: list[Any] = []

        async def all_there() -> bool:
            for some in (await consumer.getmany(timeout_ms=200)).values():
                heard.extend(some)
            return len(heard) >= len(events)

        await wait_until(all_there, 20, what="sixty records")
    finally:
        await consumer.stop()
    assert [(row.offset - first, row.key) for row in heard] == [
        (at, str(event["dossier_id"]).encode()) for at, event in enumerate(events)
    ]
