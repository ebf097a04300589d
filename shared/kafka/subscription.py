"""Consumes from the broker: one FastStream subscriber for all topics of a service, connected in the background.

FastStream runs the loop, `batch_reader.py` reads the batches, `Consumer.apply` applies them. FastStream's defaults lose
messages, so every option is set here: batches, NACK_ON_ERROR (after an error the batch is fetched again), earliest, a
literal group id, roundrobin.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage

from shared.contract.envelope import Record
from shared.kafka.batch_reader import FETCH_MS, MAX_RECORDS, BatchReader
from shared.kafka.internals import (
    assignment_of,
    check_membership,
    client_of,
    end_coordination,
    is_consuming,
    never_leave_group,
    positions_of,
    take_batches_from,
)
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import ASK_S, cluster_id, ensure_topics, pin_to_present
from shared.postgres.transient import is_transient
from shared.telemetry.metrics import DeliveryMetrics

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

FETCH_BYTES, FETCH_BYTES_OF_ONE = 16_777_216, 1_048_576
"""Bytes that the broker may return to one fetch, in all and from one partition."""
STOP_S = 20.0
"""The longest time for finishing the current batch and leaving the group."""
WATCH_S = 1.0
"""Time between two checks of the broker, the cluster and the group membership."""
SILENCE_S = 10.0
"""After this time without an answer the subscription starts again."""
MAX_POLL_MS = 300_000
GAP_PATIENCE_S = 30.0
"""An event held for longer makes the subscription read again from the oldest record."""
MAX_GAP_PATIENCE_S = 3_600.0


class Subscription:
    """Passes the records of `topics` to `apply`, as a member of the group `service`.

    `unhurried`: nobody waits for these records, so the broker is asked rarely.
    """

    def __init__(
        self,
        *,
        service: str,
        topics: Sequence[str],
        kafka: KafkaSettings,
        pool: Callable[[], Pool],
        apply: Callable[[Sequence[Record]], Awaitable[None]],
        metrics: DeliveryMetrics,
        unhurried: bool = False,
    ) -> None:
        self._service, self.topics, self._kafka = service, tuple(topics), kafka
        self._pool, self._apply, self._metrics = pool, apply, metrics
        self._unhurried = unhurried
        self.connected = False
        self._reader = self._new_reader()
        self._cluster: str | None = None
        self._subscriber: Any = None

    def _new_reader(self) -> BatchReader:
        """A reader for one consumer: the offsets applied in one cluster mean nothing in another."""
        return BatchReader(kafka=self._kafka, apply=self._apply, unhurried=self._unhurried)

    def broker(self) -> tuple[KafkaBroker, Any]:
        """A new FastStream broker with its one subscriber."""
        reader = self._reader = self._new_reader()
        broker = KafkaBroker(
            self._kafka.addresses,
            client_id=f"{self._service}-consumer",
            apply_types=False,
            consumer_only=True,
            allow_auto_create_topics=False,
            metadata_max_age_ms=5_000,
            graceful_timeout=15.0,
            logger=None,
        )
        subscriber = broker.subscriber(
            *self.topics,
            group_id=self._service,
            batch=True,
            max_records=MAX_RECORDS,
            batch_timeout_ms=FETCH_MS,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            session_timeout_ms=self._kafka.session_timeout_ms,
            heartbeat_interval_ms=self._kafka.heartbeat_ms,
            rebalance_timeout_ms=self._kafka.session_timeout_ms * 3,
            max_poll_interval_ms=MAX_POLL_MS,
            fetch_max_wait_ms=self._kafka.fetch_wait_ms,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES_OF_ONE,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            listener=_Rewinder(self),
            parser=reader.wrap,
            decoder=_decode,
            title=f"{self._service}:records",
        )
        subscriber(reader.apply_batch)
        take_batches_from(subscriber, reader.take)
        self._subscriber = subscriber
        return broker, subscriber

    async def run(self) -> None:
        """Connect and consume until cancelled; start again when the broker goes away or is another one."""
        pause = 0.1
        while True:
            try:
                await ensure_topics(self._kafka)
                broker, subscriber = self.broker()
                try:
                    await broker.start()
                    pause = 0.1
                    await self._watch(subscriber)
                finally:
                    self.connected = False
                    try:
                        await _stop(broker, subscriber.consumer, self._kafka)
                    finally:
                        await self._reader.prefetch.drop()
            except Exception as error:
                expected = is_transient(error) or type(error).__module__.startswith("aiokafka")
                log.warning("subscription starts again", error=repr(error)[:200], exc_info=None if expected else error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _watch(self, subscriber: Any) -> None:
        """Return when the reading has ended, another cluster answers, or no broker answers for `SILENCE_S`.

        Raises TimeoutError when no broker answers at the start.
        """
        another = await pin_to_present(client_of(subscriber.consumer))
        silent_since: float | None = None
        gaps_checked_at, gap_patience = time.monotonic(), GAP_PATIENCE_S
        while True:
            if not is_consuming(subscriber):
                log.error("reading has ended: the subscription starts again")
                return
            try:
                async with asyncio.timeout(ASK_S):
                    present_id = await cluster_id(client_of(subscriber.consumer))
                check_membership(subscriber.consumer)
                assigned = set(subscriber.consumer.assignment())
                if assigned and present_id != self._cluster:
                    await self.rewind_if_new(assigned)
                self.connected = bool(assigned)
                self._measure(subscriber.consumer)
                if time.monotonic() - gaps_checked_at > gap_patience:
                    gaps_checked_at = time.monotonic()
                    gap_patience = await self._check_gaps(assigned, gap_patience)
                silent_since = None
            except Exception as error:  # noqa: BLE001 - with any error the broker or the membership is gone
                self.connected = False
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > SILENCE_S:
                    log.warning("the broker does not answer", error=type(error).__name__)
                    return
            await asyncio.wait({another}, timeout=WATCH_S)
            if another.done():
                log.warning("another cluster answers at the broker's address")
                return

    async def _check_gaps(self, assigned: set[TopicPartition], patience_s: float) -> float:
        """Read again from the oldest record when an event is held for long, because an earlier one is missing.

        Returns the seconds until the next check: twice as long each time that reading again did not help.
        """
        try:
            old = await self._pool().fetchval(
                "select count(*) from held"
                " where reason = 'gap' and held_at < clock_timestamp() - $1 * interval '1 second'",
                GAP_PATIENCE_S,
            )
        except Exception as error:
            if not is_transient(error):
                raise
            return patience_s  # the database is away; the member stays in the group
        if not old:
            return GAP_PATIENCE_S
        log.error("held events wait for earlier ones: reading again from the oldest record", held=old)
        await self._reader.read_from_start(self._subscriber.consumer, assigned)
        return min(patience_s * 2, MAX_GAP_PATIENCE_S)

    async def rewind_if_new(self, assigned: set[TopicPartition]) -> None:
        """Read from the oldest record of a new cluster: the committed offsets mean nothing there.

        Both the id in memory and the id in the database count: another instance may have saved the new cluster's id
        before this one has noticed the change.
        """
        consumer = self._subscriber.consumer
        present_id = await cluster_id(client_of(consumer))
        saved = await self._pool().fetchval("select cluster_id from broker_cluster where side = 'consumer'")
        if {self._cluster, saved} - {None, present_id} and assigned:
            log.warning("a new cluster: reading from its oldest record", partitions=len(assigned))
            await self._reader.read_from_start(self._subscriber.consumer, assigned)
        if saved != present_id:
            await self._pool().execute(
                "insert into broker_cluster (side, cluster_id) values ('consumer', $1)"
                " on conflict (side) do update set cluster_id = excluded.cluster_id, seen_at = clock_timestamp()",
                present_id,
            )
        self._cluster = present_id

    def _measure(self, consumer: Any) -> None:
        """Set the lag beyond the fetched records, and the age of the oldest record that is not applied."""
        now = time.time()
        for partition, position in positions_of(assignment_of(consumer)).items():
            high = consumer.highwater(partition)
            if high is not None:
                self._metrics.lag.labels(partition.topic, str(partition.partition)).set(max(high - position, 0))
        for topic in self.topics:
            self._metrics.oldest_unprocessed.labels(topic).set(self._reader.oldest(topic, now))


async def _stop(broker: KafkaBroker, consumer: Any, kafka: KafkaSettings) -> None:
    """Let a FastStream broker finish the current batch and end it, within `STOP_S`, whatever its group does."""
    if consumer and kafka.flavour == "tansu":
        # The embedded broker waits for ever for a group leader that has left during a rebalance. It gives up a leader
        # that is silent for a session (docs/brokers.md, 13).
        never_leave_group(consumer)
    try:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(STOP_S):
                await broker.stop()
    finally:
        if consumer:
            await end_coordination(consumer)


async def _decode(message: KafkaAckableMessage) -> Any:
    return message.raw_message


class _Rewinder(ConsumerRebalanceListener):  # type: ignore[misc]
    """Checks at each assignment whether this is still the cluster of the committed offsets."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        pass

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._subscription.rewind_if_new(assigned)
