"""Reads the batches of one consumer: prefetch, application, offset commits, and another fetch after a failure."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faststream.kafka.message import KafkaAckableMessage
from faststream.message import StreamMessage

from shared.contract.envelope import Record
from shared.kafka import corrupt
from shared.kafka.internals import set_fetch_wait
from shared.kafka.prefetch import AppliedOffsets, Batch, Prefetch
from shared.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

MAX_RECORDS = 2_000
FIRST_RECORDS = 100
BATCH_BYTES = 8_000_000
"""The limits of one batch; there are two at a time, the one being applied and the next. Together with the limits of a
fetch (`subscription.py`) they bound the memory, whatever the backlog and the size of a record."""
FETCH_MS = 200
"""How long one fetch waits for records before it returns none; records that come are returned at once."""
COMMIT_EVERY_S = 0.5
"""Time between two offset commits. A later commit costs more repeats after a crash, each commit a request."""
REST_AFTER_S = 1.0
"""After this time without a record the broker is asked less often."""
BACKLOG_RECORDS = 200
"""A batch of so many records means that there is a backlog."""


class BatchReader:
    """Reads for one consumer. FastStream calls `take`, `wrap` and `apply_batch`, one after the other.

    `apply` returns when the effects of a batch are committed, and raises when the batch must be fetched again.
    `unhurried`: nobody waits for these records, so the broker is asked rarely.
    """

    def __init__(
        self, *, kafka: KafkaSettings, apply: Callable[[Sequence[Record]], Awaitable[None]], unhurried: bool
    ) -> None:
        self._kafka, self._apply, self._unhurried = kafka, apply, unhurried
        self._consumer: AIOKafkaConsumer | None = None
        self.prefetch, self.offsets = Prefetch(self._fetch), AppliedOffsets()
        self._applying: dict[str, float] = {}
        """`Batch.oldest` of the batch that is being applied."""
        self._max_records = FIRST_RECORDS  # until the size of the records is known
        self._received_at = 0.0
        self._committed_at = 0.0

    def oldest(self, topic: str, now: float) -> float:
        """When the oldest record was sent that is fetched and not applied (seconds since 1970); `now` without one."""
        return min(self._applying.get(topic, now), self.prefetch.oldest.get(topic, now))

    async def take(self, consumer: AIOKafkaConsumer) -> Batch:
        """The next batch; empty when no record came for a while. Raises KafkaError and ConsumerStoppedError."""
        self._consumer = consumer
        await self._commit_offsets(consumer)
        return await self.prefetch.take()

    async def _fetch(self) -> Batch:
        assert self._consumer is not None
        consumer, generation = self._consumer, self.offsets.generation
        try:
            rows = await corrupt.fetch(consumer, timeout_ms=FETCH_MS, max_records=self._max_records)
        except KafkaError as error:
            log.error("fetch failed", error=repr(error)[:200])  # FastStream only waits and tries again
            raise
        self._pace(consumer, len(rows))
        if rows:
            # So many records of this average size fit into the next batch.
            size = sum(len(row.value) for row in rows if row.value) / len(rows)
            self._max_records = max(1, min(MAX_RECORDS, int(BATCH_BYTES / max(size, 1))))
        try:
            batch = await Batch.unpack(rows)
        except Exception as error:
            # A bug in hoso: the records are fetched again, and nothing after them is applied.
            log.exception("fetched records cannot be parsed", records=len(rows))
            corrupt.rewind(consumer, {TopicPartition(r.topic, r.partition): r.offset for r in reversed(rows)})
            raise KafkaError(f"records cannot be parsed: {type(error).__name__}") from error
        batch.generation = generation
        return batch

    async def _commit_offsets(self, consumer: AIOKafkaConsumer) -> None:
        """Commit the offsets up to which the partitions are applied. A failure only causes repeats."""
        if not self.offsets.uncommitted or time.monotonic() - self._committed_at < COMMIT_EVERY_S:
            return
        assigned = consumer.assignment()
        try:
            if offsets := {one: offset for one, offset in self.offsets.uncommitted.items() if one in assigned}:
                await consumer.commit(offsets)
            self.offsets.uncommitted = {}
        except KafkaError as error:
            log.info("offset commit failed", error=repr(error)[:200], partitions=len(self.offsets.uncommitted))
        self._committed_at = time.monotonic()

    def _pace(self, consumer: AIOKafkaConsumer, received: int) -> None:
        """Set how long the next fetches may wait: short in ordinary traffic, longer at rest and in a backlog."""
        now = time.monotonic()
        if received:
            self._received_at = now
        resting = received >= BACKLOG_RECORDS or now - self._received_at > REST_AFTER_S
        wait_ms = self._kafka.rest_wait_ms if resting else self._kafka.fetch_wait_ms
        set_fetch_wait(consumer, self._kafka.unhurried_wait_ms if self._unhurried else wait_ms)

    async def wrap(self, batch: Batch) -> KafkaAckableMessage:
        """The batch as FastStream's message. FastStream's own parser raises for ever on a header that is not UTF-8."""
        message = _Message(
            body=b"", headers={}, raw_message=batch, message_id="", content_type=None, consumer=self._consumer
        )
        message.fetch_again = partial(self._fetch_again, batch)
        return message

    async def apply_batch(self, batch: Batch) -> None:
        """Apply a batch. Raises what `apply` raises; then FastStream has the batch fetched again."""
        self._applying = batch.oldest
        try:
            await self._apply(batch)
        except asyncio.CancelledError as inner:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            # Raised inside a client library, not by a stop: FastStream would end its loop without a message.
            raise RuntimeError("applying was cancelled from inside") from inner
        finally:
            self._applying = {}
        self.offsets.add(batch)

    async def _fetch_again(self, batch: Batch) -> None:
        """Fetch a batch again, and the next one too: if that one were committed first, this one would be skipped."""
        log.error("a batch failed and is fetched again", records=len(batch))
        assert self._consumer is not None
        try:
            with contextlib.suppress(KafkaError, ConsumerStoppedError):  # raised when there is no next batch
                corrupt.rewind(self._consumer, (await self.prefetch.take_last()).starts)
        finally:
            corrupt.rewind(self._consumer, batch.starts)

    async def read_from_start(self, consumer: AIOKafkaConsumer, partitions: set[TopicPartition]) -> None:
        """Read the partitions from their oldest record. Raises KafkaError when they are no longer assigned."""
        self.offsets.restart()
        if not await consumer.seek_to_beginning(*partitions):
            raise KafkaError("not read again: the partitions are assigned to another member")


class _Message(KafkaAckableMessage):
    """A batch that FastStream acknowledges or rejects. `BatchReader` commits its offsets, and rewinds after a failure:
    FastStream's own `nack` could move a partition forward."""

    fetch_again: Callable[[], Awaitable[None]]

    async def ack(self) -> None:
        await StreamMessage.ack(self)

    async def nack(self) -> None:
        await self.fetch_again()
        await StreamMessage.nack(self)
