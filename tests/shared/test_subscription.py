"""Consuming through FastStream from a real broker: exceptions, foreign records and rebalances lose nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from faststream import AckPolicy

from shared.contract.envelope import Record
from shared.contract.events import PARTITIONS, SUBMISSIONS
from shared.contract.partitions import lane_of
from shared.kafka import batch_reader, corrupt, subscription
from shared.kafka.settings import KafkaSettings
from shared.kafka.subscription import Subscription
from shared.kafka.topics import ensure_topics
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.group_members import send, wait_until_applied
from tests.shared.records import foreign_record, record
from tests.shared.world import doubles, held, parked

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


def test_the_subscriber_acknowledges_no_record_before_it_is_applied() -> None:
    declared = Subscription(
        service="workflow",
        topics=["one", "two"],
        kafka=KafkaSettings("127.0.0.1:1", "tansu"),
        pool=lambda: None,  # type: ignore[arg-type, return-value] # not asked
        apply=None,  # type: ignore[arg-type] # not called
        metrics=world.metrics(),
    )
    broker, subscriber = declared.broker()
    assert list(broker.subscribers) == [subscriber], "one subscriber for all of a service's topics"
    options = subscriber._connection_args
    assert subscriber.ack_policy is AckPolicy.NACK_ON_ERROR
    assert subscriber.group_id == "workflow"
    assert subscriber.topic_names == ["one", "two"]
    assert options["enable_auto_commit"] is False
    assert options["auto_offset_reset"] == "earliest"
    assert options["partition_assignment_strategy"] == [RoundRobinPartitionAssignor]
    assert options["session_timeout_ms"] == 3_000
    assert options["max_poll_interval_ms"] > 120_000, "longer than the consumer's patience"
    assert KafkaSettings("", "apache").session_timeout_ms == 10_000


async def test_records_from_before_the_first_start_are_consumed(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    dossiers = [uuid4() for _ in range(20)]
    await send(producer, [record(d, n) for n in (1, 2) for d in dossiers])
    start_member()
    await wait_until_applied(pool, [(d, n) for n in (1, 2) for d in dossiers])


async def test_exceptions_lose_no_record(start_member: Any, producer: AIOKafkaProducer, pool: Pool) -> None:
    """After an error the whole batch is fetched again: all its partitions, not only the first record's."""
    apply, failures = world.consumer(pool).apply, 3

    async def failing(records: Sequence[Record]) -> None:
        nonlocal failures
        if records and failures:
            failures -= 1
            raise RuntimeError("three times")
        await apply(records)

    start_member(failing)
    dossiers = [uuid4() for _ in range(30)]
    for sequence in (1, 2, 3):
        await send(producer, [record(d, sequence) for d in dossiers])
    await wait_until_applied(pool, [(d, n) for n in (1, 2, 3) for d in dossiers])
    assert failures == 0
    assert await doubles(pool) == 0


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
async def test_records_that_others_have_compressed_are_consumed(
    codec: Any, start_member: Any, kafka: KafkaSettings, pool: Pool
) -> None:
    """A topic or a broker may compress by itself. Without the codec no record of any partition comes."""
    dossier_id = uuid4()
    async with AIOKafkaProducer(bootstrap_servers=kafka.servers, compression_type=codec) as packing:
        await send(packing, [record(dossier_id, 1, "x" * 2_000)])
    start_member()
    await wait_until_applied(pool, [(dossier_id, 1)])


async def test_foreign_records_do_not_stop_the_consumption(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    dossier_id = uuid4()
    batch = [
        foreign_record("no headers"),
        foreign_record("not UTF-8", ce_id=b"\xff\xfe", name=b"\x80"),
        record(dossier_id, 1),
        foreign_record("NUL", ce_source=b"\x00"),
        record(dossier_id, 2),
    ]
    start_member()
    await send(producer, batch)
    await wait_until_applied(pool, [(dossier_id, 1), (dossier_id, 2)])
    assert [row[2] for row in await parked(pool)] == ["no-envelope"] * 3


async def send_unreadable(kafka: KafkaSettings, partition: int) -> None:
    """A record whose header name is not UTF-8: aiokafka raises when it unpacks it."""

    class NotText(str):
        def encode(self, *_: Any) -> bytes:
            return b"\xff\xfe"

    producer = AIOKafkaProducer(bootstrap_servers=kafka.servers, request_timeout_ms=5_000)
    await producer.start()
    batch = producer.create_batch()
    batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 10_000)
    batch.append(key=b"k", value=b"v", timestamp=None, headers=[(NotText("x"), b"1")])
    batch.close()
    try:
        await asyncio.wait_for(await producer.send_batch(batch, SUBMISSIONS, partition=partition), 10)
    finally:
        await producer.stop()


async def test_a_record_that_cannot_be_unpacked_is_skipped_and_no_other_is_lost(
    start_member: Any, producer: AIOKafkaProducer, kafka: KafkaSettings, pool: Pool
) -> None:
    dossiers = [uuid4() for _ in range(40)]
    await send(producer, [record(d, 1) for d in dossiers])
    await send_unreadable(kafka, lane_of(str(dossiers[0])))
    await send_unreadable(kafka, lane_of(str(dossiers[0])))
    await send(producer, [record(d, 2) for d in dossiers])
    start_member()
    await wait_until_applied(pool, [(d, n) for n in (1, 2) for d in dossiers], 30)
    assert [row[2] for row in await parked(pool)] == ["no-envelope", "no-envelope"]


async def test_positions_that_moved_before_an_error_go_back(
    producer: AIOKafkaProducer, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before aiokafka raises for one partition, it has moved the positions of those that it has unpacked."""
    await ensure_topics(kafka)
    await send(producer, [record(uuid4(), 1) for _ in range(60)])
    getall, calls = FetchResult.getall, 0

    def sometimes(self: Any, max_records: int | None = None) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise CorruptRecordException
        return getall(self, max_records)

    monkeypatch.setattr(FetchResult, "getall", sometimes)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.servers, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(SUBMISSIONS, lane) for lane in range(PARTITIONS)])
    read: list[tuple[int, int]] = []
    raised = 0

    async def read_all() -> bool:
        nonlocal raised
        try:
            rows = await corrupt.fetch(consumer, timeout_ms=20, max_records=500)
            read.extend((row.partition, row.offset) for row in rows)
        except CorruptRecordException:
            raised += 1
        return len(read) >= 60

    try:
        await wait_until(read_all)
    finally:
        await consumer.stop()
    assert raised == 1
    assert len(read) == len(set(read)) == 60


async def test_an_event_held_for_long_makes_the_member_read_again_from_the_start(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever made the position skip an event, the log still has the event."""
    monkeypatch.setattr(subscription, "GAP_PATIENCE_S", 0.5)
    apply, dropped = world.consumer(pool).apply, 0
    dossier_id = uuid4()

    async def forgetful(records: Sequence[Record]) -> None:
        nonlocal dropped
        if not dropped and records:
            dropped = len(records)
            return
        await apply(records)

    start_member(forgetful)
    await send(producer, [record(dossier_id, 1)])
    await wait_until(lambda: dropped, 20)
    await send(producer, [record(dossier_id, 2)])
    await wait_until(lambda: held(pool), 10)
    await wait_until_applied(pool, [(dossier_id, 1), (dossier_id, 2)])


async def test_at_rest_the_broker_is_asked_rarely_and_in_traffic_often(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool, kafka: KafkaSettings
) -> None:
    """The embedded broker answers a long poll only when its time is over, so short polls cost processor time."""
    member = start_member()
    await wait_until(lambda: len(member.partitions) == PARTITIONS, 20, what="all partitions")
    fetcher = member.subscription._subscriber.consumer._fetcher
    await wait_until(lambda: fetcher._fetch_max_wait_ms == kafka.rest_wait_ms, 10, what="it asks rarely")
    dossier_id = uuid4()
    await send(producer, [record(dossier_id, 1)])
    await wait_until(lambda: fetcher._fetch_max_wait_ms == kafka.fetch_wait_ms, 10, what="it asks often")
    await wait_until_applied(pool, [(dossier_id, 1)])
    await wait_until(lambda: fetcher._fetch_max_wait_ms == kafka.rest_wait_ms, 10, what="it asks rarely again")
    member.subscription._reader._pace(member.subscription._subscriber.consumer, batch_reader.BACKLOG_RECORDS)
    assert fetcher._fetch_max_wait_ms == kafka.rest_wait_ms


async def test_after_a_cancellation_from_inside_the_batch_is_fetched_again(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    """FastStream would take it for a stop and end its loop without a message."""
    consumer, cancelled = world.consumer(pool), 0

    async def apply(records: Sequence[Record]) -> None:
        nonlocal cancelled
        if not cancelled:
            cancelled += 1
            raise asyncio.CancelledError
        await consumer.apply(records)

    member = start_member(apply)
    await wait_until(lambda: len(member.partitions) == PARTITIONS, 30)
    reading = member.subscription._subscriber
    dossiers = [uuid4() for _ in range(20)]
    await send(producer, [record(dossier_id, 1) for dossier_id in dossiers])
    await wait_until_applied(pool, [(dossier_id, 1) for dossier_id in dossiers], 30)
    assert cancelled == 1
    assert member.subscription._subscriber is reading, "the subscription has not started again"
    assert await doubles(pool) == 0


async def test_a_subscription_whose_reading_has_ended_starts_again(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    member = start_member()
    await wait_until(lambda: len(member.partitions) == PARTITIONS, 30)
    ended = member.subscription._subscriber
    for task in ended.tasks:
        task.cancel()
    dossier_id = uuid4()
    await send(producer, [record(dossier_id, 1)])
    await wait_until_applied(pool, [(dossier_id, 1)], 30)
    assert member.subscription._subscriber is not ended


def test_without_an_assignment_there_are_no_positions() -> None:
    class NotYet:
        class _subscription:
            subscription = None

    positions = corrupt._FetchPositions(NotYet())
    assert positions.offsets == {}
    positions.restore()


def test_an_error_after_a_rebalance_makes_the_member_begin_at_the_committed_offsets() -> None:
    """Otherwise records of the new assignment are lost: they are unpacked, and the positions have passed them."""
    joined: list[bool] = []

    class Consumer:
        class _subscription:
            subscription = SimpleNamespace(assignment=SimpleNamespace(tps=[]))

        class _coordinator:
            request_rejoin = staticmethod(lambda: joined.append(True))

    positions = corrupt._FetchPositions(Consumer())
    positions.restore_or_rejoin()
    assert not joined
    Consumer._subscription.subscription = SimpleNamespace(assignment=SimpleNamespace(tps=[]))
    positions.restore_or_rejoin()
    assert joined
