"""Listening to the broker: one FastStream subscriber for all of a service's topics, connected in the background.

FastStream runs the loop and gives back what failed; `Consumer.apply` does the work while the next batch is fetched, and
our place is told twice a second: what was applied. FastStream's defaults lose messages, so nothing here is left to
a default: batches, NACK_ON_ERROR (an error fetches the batch again), earliest, a literal group id, roundrobin.
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
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.message import StreamMessage

from shared import unreadable
from shared.ahead import Ahead, Batch, Place
from shared.database import is_passing
from shared.envelope import Record
from shared.kafka import ASK_S, KafkaSettings, cluster_id, ensure_topics, pin, stop_reading
from shared.metrics import DeliveryMetrics

if TYPE_CHECKING:
    from shared.database import Pool

log = structlog.get_logger(__name__)

MAX_RECORDS = 1_000
BATCH_BYTES = 8_000_000
FETCH_BYTES, FETCH_BYTES_OF_ONE = 16_777_216, 1_048_576
"""What one batch may hold, and what the broker may hand out at once, in all and of one partition: together they bound
the memory, however much is waiting and however large a record is."""
LISTEN_MS = 200
"""How long to listen before looking again at what is assigned; records that arrive are handed out at once."""
WATCH_S = 1.0
COMMIT_EVERY_S = 0.5
"""How often the group's place is told to the broker. One that lags costs repeats; each telling, the broker's time."""
REST_AFTER_S = 1.0
PLENTY = 200
"""Records in a batch that mean a backlog."""
SILENCE_S = 10.0
MAX_POLL_MS = 300_000
GAP_PATIENCE_S = 30.0
MOST_GAP_PATIENCE_S = 3_600.0


class Subscription:
    """Feeds `apply` with records of `topics` for the group `service`, until stopped."""

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
        self._ahead = Ahead(self._fetch)
        self._place = Place()
        self._current: dict[str, float] = {}
        """Topic -> when the oldest record of the batch that is being applied was sent (seconds since 1970)."""
        self._cluster: str | None = None
        self._subscriber: Any = None
        self._most = MAX_RECORDS // 10
        self._heard_at = 0.0
        self._committed_at = 0.0

    def broker(self) -> tuple[KafkaBroker, Any]:
        """A FastStream broker with the one subscriber."""
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
            batch_timeout_ms=LISTEN_MS,
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
            parser=self._parse,
            decoder=_decode,
            title=f"{self._service}:records",
        )
        subscriber(self._on_batch)
        subscriber.get_msg = self._get_batch  # type: ignore[method-assign] # FastStream has no hook between
        self._subscriber = subscriber
        self._place.begin()  # another cluster may be there, and be ours before we have asked which
        self._ahead = Ahead(self._fetch)
        return broker, subscriber

    async def run(self) -> None:
        """Connect, listen, and do it again whenever the broker goes away or is another one; until cancelled."""
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
                    await stop_reading(broker, subscriber.consumer, self._kafka)
                    await self._ahead.drop()
            except Exception as error:
                expected = is_passing(error) or type(error).__module__.startswith("aiokafka")
                log.warning("listening starts again", error=repr(error)[:200], exc_info=None if expected else error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _watch(self, subscriber: Any) -> None:
        """Until the cluster is another one or nobody answers for long. Raises KafkaError, OSError or TimeoutError."""
        async with asyncio.timeout(ASK_S):
            another = pin(subscriber.consumer._client, await cluster_id(subscriber.consumer._client))
        silent_since: float | None = None
        gaps_looked_at, gap_patience = time.monotonic(), GAP_PATIENCE_S
        while True:
            if all(task.done() for task in subscriber.tasks):
                log.error("nobody reads any more: listening begins anew")
                return
            try:
                async with asyncio.timeout(ASK_S):
                    found = await cluster_id(subscriber.consumer._client)
                subscriber.consumer._coordinator.check_errors()
                assigned = set(subscriber.consumer.assignment())
                if assigned and found != self._cluster:
                    await self.rewind_if_new(assigned)
                self.connected = bool(assigned)
                self._measure(subscriber.consumer)
                if time.monotonic() - gaps_looked_at > gap_patience:
                    gap_patience = await self._look_for_gaps(subscriber.consumer, gap_patience)
                    gaps_looked_at = time.monotonic()
                silent_since = None
            except Exception as error:  # noqa: BLE001 - whatever it is, the broker or the group's membership is gone
                self.connected = False
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > SILENCE_S:
                    log.warning("the broker does not answer", error=type(error).__name__)
                    return
            await asyncio.wait({another}, timeout=WATCH_S)
            if another.done():
                log.warning("the broker is another one now")
                return

    async def _look_for_gaps(self, consumer: Any, patience_s: float) -> float:
        """An event held for long misses an earlier one: read the log again from the start, repeats cost little.

        Returns how many seconds to wait before the next look: longer each time that it did not help.
        """
        old = await self._pool().fetchval(
            "select count(*) from held where reason = 'gap' and held_at < clock_timestamp() - $1 * interval '1 second'",
            GAP_PATIENCE_S,
        )
        if not old:
            return GAP_PATIENCE_S
        log.error("events wait for earlier ones that have not come: reading again from the oldest record", held=old)
        await self._read_again(consumer.assignment())
        return min(patience_s * 2, MOST_GAP_PATIENCE_S)

    async def rewind_if_new(self, assigned: set[TopicPartition]) -> None:
        """On a cluster that is not the one we heard last, the committed offsets mean nothing: begin at the oldest.

        Both memories count: another instance may have written the new cluster down before this one noticed it.
        """
        consumer = self._subscriber.consumer
        found = await cluster_id(consumer._client)
        written = await self._pool().fetchval("select cluster_id from broker_cluster where side = 'consumer'")
        if {self._cluster, written} - {None, found} and assigned:
            log.warning("listening from the oldest record of a new cluster", partitions=len(assigned))
            await self._read_again(assigned)
        if written != found:
            await self._pool().execute(
                "insert into broker_cluster (side, cluster_id) values ('consumer', $1)"
                " on conflict (side) do update set cluster_id = excluded.cluster_id, seen_at = clock_timestamp()",
                found,
            )
        self._cluster = found

    async def _read_again(self, places: set[TopicPartition]) -> None:
        self._place.begin()
        await self._subscriber.consumer.seek_to_beginning(*places)

    async def _get_batch(self, consumer: Any) -> Batch:
        await self._commit(consumer)
        return await self._ahead.take()

    async def _fetch(self) -> Batch:
        consumer, reading = self._subscriber.consumer, self._place.reading
        rows = await unreadable.fetch(consumer, timeout_ms=LISTEN_MS, max_records=self._most)
        self._pace(consumer, len(rows))
        if rows:
            # As many of the next as would fit if they were like these.
            size = sum(len(row.value) for row in rows if row.value) / len(rows)
            self._most = max(1, min(MAX_RECORDS, int(BATCH_BYTES / max(size, 1))))
        batch = await Batch.unpack(rows)
        batch.reading = reading
        return batch

    async def _commit(self, consumer: Any) -> None:
        """Tell our place: of what has been applied, whatever was fetched since."""
        if not self._place.applied or time.monotonic() - self._committed_at < COMMIT_EVERY_S:
            return
        assigned = consumer.assignment()
        try:
            if places := {place: at for place, at in self._place.applied.items() if place in assigned}:
                await consumer.commit(places)
            self._place.applied = {}
        except KafkaError as error:
            log.info("place not told", error=type(error).__name__)
        self._committed_at = time.monotonic()

    def _pace(self, consumer: Any, heard: int) -> None:
        """How long the next long polls may take: little in ordinary traffic, more at night and with a whole backlog."""
        now = time.monotonic()
        if heard:
            self._heard_at = now
        resting = self._unhurried or heard >= PLENTY or now - self._heard_at > REST_AFTER_S
        # aiokafka reads it for each request and has no setter.
        consumer._fetcher._fetch_max_wait_ms = self._kafka.rest_wait_ms if resting else self._kafka.fetch_wait_ms

    async def _parse(self, rows: Any) -> KafkaAckableMessage:
        # FastStream's own parser decodes every header as UTF-8 and would raise, for ever, on a stranger's record.
        return _Batch(
            body=b"", headers={}, raw_message=rows, message_id="", content_type=None, consumer=self._subscriber.consumer
        )

    async def _on_batch(self, batch: Batch) -> None:
        self._current = batch.oldest
        try:
            await self._apply_to_the_end(batch)
        except Exception as error:
            log.error("a batch is given back and fetched again", records=len(batch), error=type(error).__name__)
            await self._give_back_what_follows()
            raise
        self._current = {}
        self._place.move(batch)

    async def _give_back_what_follows(self) -> None:
        """Applied and told before the batch that has failed, it would leave that one out."""
        with contextlib.suppress(KafkaError, ConsumerStoppedError):  # then it was not fetched
            unreadable.go_back(self._subscriber.consumer, (await self._ahead.rest()).starts)

    async def _apply_to_the_end(self, batch: Batch) -> None:
        try:
            await self._apply(batch)
        except asyncio.CancelledError as inner:
            if (us := asyncio.current_task()) is None or us.cancelling():
                raise
            # A client library's inner cancellation is not ours: FastStream would end listening without a word.
            raise RuntimeError("applying was cancelled from inside") from inner

    def _measure(self, consumer: Any) -> None:
        """Lag from the consumer's own position; age from the record times of what is fetched or being applied."""
        now = time.time()
        for partition in consumer.assignment():
            high = consumer.highwater(partition)
            fetched = consumer._subscription.subscription.assignment.state_value(partition)
            if high is not None and fetched is not None and fetched.has_valid_position:
                self._metrics.lag.labels(partition.topic, str(partition.partition)).set(max(high - fetched.position, 0))
        for topic in self.topics:
            oldest = min(self._current.get(topic, now), self._ahead.oldest.get(topic, now))
            self._metrics.oldest_unprocessed.labels(topic).set(oldest)


class _Batch(KafkaAckableMessage):
    """Given back when it failed, as FastStream does it; our place is told by `Subscription._commit`."""

    async def ack(self) -> None:
        await StreamMessage.ack(self)


async def _decode(message: Any) -> Any:
    return message.raw_message


class _Rewinder(ConsumerRebalanceListener):  # type: ignore[misc]
    """At each assignment, ask whether this is still the cluster whose offsets we know."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        pass

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._subscription.rewind_if_new(assigned)
