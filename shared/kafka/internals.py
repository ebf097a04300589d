"""Everything that hoso uses of aiokafka and FastStream beyond their public interface. No other module uses such parts.

Read in aiokafka 0.14.0 and FastStream 0.7.8. `tests/shared/test_kafka_internals.py` fails when a release changes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections.abc import Awaitable, Callable, Container
from typing import Any

import aiokafka.admin.client
import aiokafka.client
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.record.default_records import DefaultRecordBatch

metadata_request = functools.partial(MetadataRequest, allow_auto_topic_creation=False)
"""A metadata request that creates no topic."""


def never_create_topics() -> None:
    """Keep this process's aiokafka from creating the topics that it asks about, with the broker's own partition count.

    aiokafka has no setting for it, and a wrong partition count would break the order for good (docs/brokers.md, 2).
    """
    aiokafka.client.MetadataRequest = aiokafka.admin.client.MetadataRequest = metadata_request


def client_of(consumer: AIOKafkaConsumer) -> Any:
    """The aiokafka client through which a consumer talks to the brokers. A producer has it as `producer.client`."""
    return consumer._client


def pin(client: Any, expected: str) -> asyncio.Future[None]:
    """Let an aiokafka client talk only to the cluster `expected`: a new connection to another cluster is closed unused.

    Returns a future that is done when another cluster has answered at the address. Without a pin, a producer sends its
    records in flight to the new cluster before the topics exist, which makes later records unreadable on the embedded
    broker; and a consumer joins its group there, which then waits for it when it starts again (docs/brokers.md, 3, 4
    and 14).
    """
    another: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    known: weakref.WeakSet[Any] = weakref.WeakSet(client._conns.values())
    connect = client._get_conn

    async def checked(node_id: Any, **options: Any) -> Any:
        connection = await connect(node_id, **options)
        if connection is None or connection in known:
            return connection
        try:
            answer = await connection.send(metadata_request([]))
        except Exception:  # noqa: BLE001 - an error here would end aiokafka's metadata task for good
            connection.close()
            return None
        if str(answer.cluster_id) != expected:
            connection.close()
            if not another.done():
                another.set_result(None)
            return None
        known.add(connection)
        return connection

    client._get_conn = checked
    return another


async def abort(producer: AIOKafkaProducer) -> None:
    """End a producer at once. Its records in flight are neither waited for nor sent later, as `stop()` would do."""
    for connection in list(producer.client._conns.values()):
        connection.close()
    sending = producer._sender.sender_task
    if sending is not None:
        sending.cancel()  # now it waits for its requests in flight
        await asyncio.sleep(0)
        sending.cancel()  # now it ends
        await asyncio.wait({sending}, timeout=1.0)
    with contextlib.suppress(Exception):
        await producer.client.close()
    producer._closed = True


def is_consuming(subscriber: Any) -> bool:
    """Whether a started FastStream subscriber still reads: one of its tasks runs, and aiokafka's fetcher is alive."""
    return not all(task.done() for task in subscriber.tasks) and not subscriber.consumer._fetcher.error_future.done()


def check_membership(consumer: AIOKafkaConsumer) -> None:
    """Raises the error that has ended the group membership inside aiokafka, if there is one."""
    consumer._coordinator.check_errors()


def never_leave_group(consumer: AIOKafkaConsumer) -> None:
    """Let `consumer.stop()` end without leaving the group: the group drops the member after its session timeout."""
    if consumer._coordinator is not None:
        consumer._coordinator._maybe_leave_group = _stay


async def _stay() -> None:
    """In place of leaving the group."""


async def end_coordination(consumer: AIOKafkaConsumer) -> None:
    """End a consumer whose `stop()` did not return, because it waits while the consumer tries to join its group."""
    coordinator = consumer._coordinator
    if coordinator is not None and not coordinator._coordination_task.done():
        coordinator._coordination_task.cancel()
        with contextlib.suppress(Exception):
            await consumer._client.close()


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Join the group again, so that every partition begins at its committed offset."""
    consumer._coordinator.request_rejoin()


def set_fetch_wait(consumer: AIOKafkaConsumer, wait_ms: int) -> None:
    """Set how long the broker may keep a fetch open while it has no record; aiokafka reads it for each request."""
    consumer._fetcher._fetch_max_wait_ms = wait_ms


def assignment_of(consumer: AIOKafkaConsumer) -> Any:
    """The consumer's current assignment, another object after each rebalance; None when it has none."""
    subscription = consumer._subscription.subscription
    return subscription.assignment if subscription else None


def positions_of(assignment: Any) -> dict[TopicPartition, int]:
    """The offset of each partition's next record; a partition whose position is not known yet is left out.

    `assignment`: what `assignment_of` has returned, None too.
    """
    if assignment is None:
        return {}
    states = {one: assignment.state_value(one) for one in assignment.tps}
    return {one: state.position for one, state in states.items() if state and state.has_valid_position}


def is_reassigning(consumer: AIOKafkaConsumer) -> bool:
    """Whether a rebalance is under way."""
    return bool(consumer._subscription.reassignment_in_progress)


def first_buffered(consumer: AIOKafkaConsumer, among: Container[TopicPartition]) -> TopicPartition | None:
    """The first of these partitions, in aiokafka's order, that has fetched records which `getmany` has not returned."""
    return next((one for one in consumer._fetcher._records if one in among), None)


def take_batches_from(subscriber: Any, take: Callable[[AIOKafkaConsumer], Awaitable[Any]]) -> None:
    """Let a FastStream subscriber get its batches from `take`: FastStream has no hook for it."""
    subscriber.get_msg = take


def batch_builder(max_bytes: int, *, compress: bool) -> BatchBuilder:
    """A batch for `producer.send_batch`, compressed or not: `producer.create_batch` compresses all batches or none."""
    return BatchBuilder(max_bytes, DefaultRecordBatch.CODEC_ZSTD if compress else DefaultRecordBatch.CODEC_NONE)
