"""The Apache Kafka of `deploy/kafka`: records after a kill and a wipe, and the end of its processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.protocol.metadata import MetadataRequest

from deploy.kafka import KafkaCluster, KafkaUnavailable
from deploy.local.ports import is_free
from tests.fixtures.waiting import wait_until

TOPIC = "kafka.cluster.v1"
SHORT_BROKER_SESSION = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
ROOT = Path(__file__).parents[2]


def port_base() -> int:
    """Return the first of six free ports in a row, below the kernel's range for outgoing connections."""
    for base in range(20_000 + os.getpid() % 1000 * 10, 32_000, 10):
        if all(is_free(port) for port in range(base, base + 6)):
            return base
    raise RuntimeError("no six free ports in a row")


@contextlib.asynccontextmanager
async def open_admin(cluster: KafkaCluster) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap, request_timeout_ms=10_000)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@contextlib.asynccontextmanager
async def open_producer(cluster: KafkaCluster) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=cluster.bootstrap, acks="all", enable_idempotence=True, request_timeout_ms=5_000
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def make_topic(cluster: KafkaCluster, name: str = TOPIC) -> None:
    async with open_admin(cluster) as admin:
        topic = NewTopic(name, 12, -1, replica_assignments={}, topic_configs={"retention.ms": "-1"})
        await admin.create_topics([topic])

        async def is_known() -> bool:
            row = (await admin.describe_topics([name]))[0]
            return row["error_code"] == 0 and len(row["partitions"]) == 12

        await wait_until(is_known, 10)


async def send(producer: AIOKafkaProducer, partition: int, values: list[bytes]) -> int:
    """Send the values as one batch and return the offset of the first."""
    batch = producer.create_batch()
    for n, value in enumerate(values):
        batch.append(key=b"018f", value=value, timestamp=1_700_000_000_000, headers=[("ce_sequence", b"%010d" % n)])
    batch.close()
    return int((await (await producer.send_batch(batch, TOPIC, partition=partition))).offset)


async def read(cluster: KafkaCluster, partition: int, count: int) -> list[tuple[int, bytes, bytes, object]]:
    """Return the first `count` records of the partition as (offset, key, value, headers), within 15 s."""
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(TOPIC, partition)])
        found: list[tuple[int, bytes, bytes, object]] = []

        async def enough() -> bool:
            for rows in (await consumer.getmany(timeout_ms=200)).values():
                found.extend((row.offset, row.key, row.value, row.headers) for row in rows)
            return len(found) >= count

        await wait_until(enough, 15, what=f"{count} records")
        return found
    finally:
        await consumer.stop()


@pytest_asyncio.fixture(scope="module")
async def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KafkaCluster]:
    folder = tmp_path_factory.mktemp("kafka") / "cluster"
    cluster = KafkaCluster(1, folder, port_base(), overrides=SHORT_BROKER_SESSION)
    await cluster.start()
    yield cluster
    await cluster.stop()


@pytest_asyncio.fixture
async def cluster(shared_cluster: KafkaCluster) -> KafkaCluster:
    """One running broker with one empty topic of twelve partitions."""
    await shared_cluster.wipe()
    await shared_cluster.start()
    await make_topic(shared_cluster)
    return shared_cluster


async def test_a_batch_keeps_its_partition_key_and_headers(cluster: KafkaCluster) -> None:
    async with open_producer(cluster) as producer:
        assert await send(producer, 7, [b"one", b"two"]) == 0
        assert await send(producer, 7, [b"three"]) == 2
    found = await read(cluster, 7, 3)
    assert [(offset, value) for offset, _, value, _ in found] == [(0, b"one"), (1, b"two"), (2, b"three")]
    assert found[1][1] == b"018f"
    assert found[1][3] == (("ce_sequence", b"0000000001"),)


async def test_a_metadata_request_does_not_create_a_topic(cluster: KafkaCluster) -> None:
    async with open_admin(cluster) as admin:
        answer = await admin._send_request(MetadataRequest(["nobody.made.this"], allow_auto_topic_creation=True))
        assert answer.topics[0][0] == UnknownTopicOrPartitionError.errno
        await make_topic(cluster, "asked.for.later")  # a topic created by the request would exist before this one
        assert sorted(await admin.list_topics()) == ["asked.for.later", TOPIC]


async def test_a_killed_broker_keeps_its_cluster_id_and_every_acknowledged_record(cluster: KafkaCluster) -> None:
    before = cluster.cluster_id
    async with open_producer(cluster) as producer:
        for partition in range(12):
            await send(producer, partition, [b"kept"] * 50)
    cluster.kill(0)
    assert not cluster.pids
    await cluster.start_broker(0)
    async with open_admin(cluster) as admin:
        assert (await admin.describe_cluster())["cluster_id"] == before
    for partition in range(12):
        assert len(await read(cluster, partition, 50)) == 50


async def test_a_wiped_broker_is_a_new_cluster_without_topics(cluster: KafkaCluster) -> None:
    before = cluster.cluster_id
    async with open_producer(cluster) as producer:
        await send(producer, 3, [b"lost"])
    await cluster.wipe()
    await cluster.start()
    async with open_admin(cluster) as admin:
        assert (await admin.describe_cluster())["cluster_id"] == cluster.cluster_id != before
        assert await admin.list_topics() == []


async def test_stop_keeps_the_records_and_a_second_start_changes_nothing(cluster: KafkaCluster) -> None:
    async with open_producer(cluster) as producer:
        await send(producer, 1, [b"kept"])
    before = cluster.cluster_id
    await cluster.stop()
    await cluster.start()
    running = cluster.pids
    await cluster.start()
    assert (cluster.pids, cluster.cluster_id) == (running, before)
    assert [value for _, _, value, _ in await read(cluster, 1, 1)] == [b"kept"]


async def test_a_taken_port_is_named_in_both_languages(cluster: KafkaCluster, tmp_path: Path) -> None:
    intruder = KafkaCluster(1, tmp_path / "intruder", cluster.port_base)
    with pytest.raises(KafkaUnavailable, match=rf"Cổng {cluster.port_base} .* / Port {cluster.port_base}"):
        await intruder.start()
    assert not intruder.pids
    assert cluster.pids


async def test_when_one_of_three_brokers_dies_no_send_fails(tmp_path: Path) -> None:
    cluster = KafkaCluster(3, tmp_path / "three", port_base(), overrides=SHORT_BROKER_SESSION)
    try:
        await cluster.start()
        await make_topic(cluster)
        async with open_admin(cluster) as admin:

            async def is_safe() -> bool:  # the broker asked may not know the new topic yet
                topic = (await admin.describe_topics([TOPIC]))[0]
                answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)])
                configs = {row[0]: row[1] for answer in answers for row in answer.resources[0][4]}
                return (
                    {len(partition["replicas"]) for partition in topic["partitions"]} == {3}
                    and configs.get("min.insync.replicas") == "2"
                    and configs.get("unclean.leader.election.enable") == "false"
                )

            await wait_until(is_safe, 10, what="three replicas of each partition, two of them in sync")
        async with open_producer(cluster) as producer:
            await asyncio.gather(*(send(producer, partition, [b"before"]) for partition in range(12)))
            cluster.kill(2)
            await asyncio.wait_for(
                asyncio.gather(*(send(producer, partition, [b"after"]) for partition in range(12))), 30
            )
            await cluster.start_broker(2)
            assert sorted(cluster.pids) == [0, 1, 2]
        for partition in range(12):
            assert [value for _, _, value, _ in await read(cluster, partition, 2)] == [b"before", b"after"]
    finally:
        await cluster.stop()


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def start_command(folder: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deploy.kafka", "up", "--port", str(port), "--directory", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
async def test_no_broker_outlives_the_command_that_started_it(tmp_path: Path, ending: signal.Signals) -> None:
    port = port_base()
    command = start_command(tmp_path / "up", port)
    assert command.stdout is not None
    try:
        line = await asyncio.wait_for(asyncio.to_thread(command.stdout.readline), 90)
        assert line == f"127.0.0.1:{port}\n"
        (broker,) = children_of(command.pid)
        command.send_signal(ending)
        assert await asyncio.to_thread(command.wait, 30) == (0 if ending == signal.SIGINT else -signal.SIGKILL)
        await wait_until(lambda: not is_running(broker), 5, what="the end of the broker")
    finally:
        if command.poll() is None:
            command.kill()
        command.stdout.close()
