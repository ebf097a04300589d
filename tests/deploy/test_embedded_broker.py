"""The embedded broker speaks Kafka's protocol, and each start is a new, empty cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local import ports
from deploy.local.broker import Broker, answers
from deploy.local.trouble import Trouble


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path, ports.free_port())
    broker.start()
    yield broker
    broker.stop()


async def describe(broker: Broker) -> tuple[str, list[str]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        return str((await admin.describe_cluster())["cluster_id"]), await admin.list_topics()
    finally:
        await admin.close()


async def test_records_keep_their_partition_and_order(broker: Broker) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("facts", 12, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
    await producer.start()
    for number in range(24):
        await producer.send_and_wait("facts", str(number).encode(), partition=number % 12)
    await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition("facts", partition) for partition in range(12)])
        seen: dict[int, list[int]] = {}
        while sum(map(len, seen.values())) < 24:
            batches = await consumer.getmany(timeout_ms=10_000)
            assert batches, "no record within ten seconds"
            for key, records in batches.items():
                seen.setdefault(key.partition, []).extend(int(record.value) for record in records)
    finally:
        await consumer.stop()
    assert seen == {partition: [partition, partition + 12] for partition in range(12)}


async def test_each_start_is_a_new_empty_cluster(broker: Broker) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("facts", 12, 1)])
    await admin.close()
    before, topics = await describe(broker)
    assert before == broker.cluster_id
    assert topics == ["facts"]
    broker.kill()
    assert broker.pid is None
    assert not answers("127.0.0.1", broker.port)
    broker.start()
    after, topics = await describe(broker)
    assert after == broker.cluster_id != before
    assert topics == []


def test_a_taken_port_is_named(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=str(broker.port)):
        Broker(tmp_path, broker.port).start()
