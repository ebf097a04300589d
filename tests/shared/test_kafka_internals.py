"""The private parts of aiokafka and FastStream that `shared/kafka/internals.py` uses exist and work as it expects."""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import aiokafka.admin.client
import aiokafka.client
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.metadata import MetadataRequest
from faststream.kafka.subscriber.usecase import BatchSubscriber, LogicSubscriber

from shared.contract.events import PARTITIONS, SUBMISSIONS
from shared.kafka import internals
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import cluster_id, ensure_topics
from tests.fixtures.waiting import wait_until
from tests.shared.group_members import GroupMember, send
from tests.shared.records import record


@pytest.mark.parametrize("library", ["aiokafka", "faststream"])
def test_the_versions_that_were_read_are_the_versions_that_are_installed(library: str) -> None:
    """After an upgrade: read the parts named in `internals.py` again, run these tests, write the new version there."""
    assert f"{library} {version(library)}" in (internals.__doc__ or "").lower()


def test_aiokafka_looks_the_metadata_request_up_in_the_two_modules_that_are_patched() -> None:
    internals.never_create_topics()
    assert aiokafka.client.MetadataRequest is internals.metadata_request
    assert aiokafka.admin.client.MetadataRequest is internals.metadata_request
    assert "MetadataRequest(" in inspect.getsource(aiokafka.client.AIOKafkaClient)
    assert "MetadataRequest(" in inspect.getsource(aiokafka.admin.client.AIOKafkaAdminClient)
    assert "allow_auto_topic_creation" in inspect.signature(MetadataRequest).parameters


async def test_every_connection_of_a_client_is_made_by_the_method_that_a_pin_replaces(
    producer: AIOKafkaProducer,
) -> None:
    method = aiokafka.client.AIOKafkaClient._get_conn
    assert inspect.iscoroutinefunction(method)
    assert list(inspect.signature(method).parameters)[:2] == ["self", "node_id"]
    client = producer.client
    await cluster_id(client)
    assert client._conns
    assert all(callable(one.close) and callable(one.send) for one in client._conns.values())
    another = internals.pin(client, "another cluster")
    for connection in list(client._conns.values()):
        connection.close()
    client._conns.clear()
    with pytest.raises((KafkaError, OSError)):
        await cluster_id(client)
    assert another.done()


async def test_an_aborted_producer_has_no_sender_and_no_connection_left(kafka: KafkaSettings) -> None:
    await ensure_topics(kafka)
    producer = kafka.producer("test")
    await producer.start()
    await cluster_id(producer.client)
    connections = list(producer.client._conns.values())
    sender = producer._sender.sender_task
    assert isinstance(sender, asyncio.Task)
    assert producer._closed is False
    await internals.abort(producer)
    assert sender.done()
    assert connections
    assert not any(connection.connected() for connection in connections)
    assert producer._closed is True
    assert "self._closed" in inspect.getsource(AIOKafkaProducer.__del__), "otherwise __del__ warns of an open producer"


def test_faststream_asks_a_subscriber_for_each_batch_by_the_method_that_is_replaced() -> None:
    assert list(inspect.signature(BatchSubscriber.get_msg).parameters) == ["self", "consumer"]
    assert "await self.get_msg(consumer)" in inspect.getsource(LogicSubscriber._run_consume_loop)


async def test_a_running_consumer_has_every_part_that_is_read_or_changed(
    start_member: Any, producer: AIOKafkaProducer
) -> None:
    member: GroupMember = start_member()
    await wait_until(lambda: len(member.partitions) == PARTITIONS, 20, what="all partitions")
    subscriber = member.subscription._subscriber
    consumer = subscriber.consumer

    assert await cluster_id(internals.client_of(consumer))
    assert isinstance(consumer._coordinator, GroupCoordinator)
    internals.check_membership(consumer)
    assert isinstance(consumer._coordinator._coordination_task, asyncio.Task)
    assert inspect.iscoroutinefunction(consumer._coordinator._maybe_leave_group)
    assert subscriber.tasks
    assert internals.is_consuming(subscriber)
    assert isinstance(consumer._fetcher.error_future, asyncio.Future)
    assert isinstance(consumer._fetcher._records, OrderedDict)
    assert internals.first_buffered(consumer, ()) is None
    assert isinstance(consumer._fetcher._fetch_max_wait_ms, int)
    assert "self._fetch_max_wait_ms" in inspect.getsource(type(consumer._fetcher)._get_actions_per_node)

    await send(producer, [record(uuid4(), 1)])
    await wait_until(lambda: sum(internals.positions_of(internals.assignment_of(consumer)).values()) == 1, 20)
    assignment = internals.assignment_of(consumer)
    assert set(assignment.tps) == {TopicPartition(SUBMISSIONS, lane) for lane in range(PARTITIONS)}
    assert internals.assignment_of(consumer) is assignment, "the same object until a rebalance"
    assert internals.is_reassigning(consumer) is False

    internals.rejoin(consumer)
    await wait_until(lambda: internals.assignment_of(consumer) not in (None, assignment), 30, what="a new assignment")


async def test_a_consumer_that_must_not_leave_its_group_does_not_and_its_coordination_ends(start_member: Any) -> None:
    member: GroupMember = start_member()
    await wait_until(lambda: len(member.partitions) == PARTITIONS, 20, what="all partitions")
    consumer = member.subscription._subscriber.consumer
    leave = consumer._coordinator._maybe_leave_group
    internals.never_leave_group(consumer)
    assert consumer._coordinator._maybe_leave_group is not leave
    assert "await self._maybe_leave_group()" in inspect.getsource(GroupCoordinator.close)
    coordination = consumer._coordinator._coordination_task
    await internals.end_coordination(consumer)
    await asyncio.wait({coordination}, timeout=5)
    assert coordination.done()


@pytest.mark.parametrize(("compress", "codec"), [(True, 4), (False, 0)])
def test_a_batch_is_compressed_with_zstd_or_not_at_all(compress: bool, codec: int) -> None:
    batch = internals.batch_builder(10_000, compress=compress)
    assert isinstance(batch, BatchBuilder)
    for _ in range(100):
        batch.append(key=b"key", value=b"the same value", timestamp=0)
    batch.close()
    assert batch._build()[22] & 7 == codec, "the attributes of a record batch, version 2"
