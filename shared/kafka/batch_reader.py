"""One consumer's batches: the next one fetched while one is applied, our place told, and what failed given back."""

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
"""What one batch may hold, of two: the one that is applied and the next. With what the broker may hand out at once
(`subscription.py`) they bound the memory, however much is waiting and however large a record is."""
LISTEN_MS = 200
"""How long to listen before looking again at what is assigned; records that arrive are handed out at once."""
COMMIT_EVERY_S = 0.5
"""How often the group's place is told to the broker. One that lags costs repeats; each telling, the broker's time."""
REST_AFTER_S = 1.0
BACKLOG_RECORDS = 200
"""Records in a batch that mean a backlog."""


class BatchReader:
    """What one consumer reads. FastStream calls `take`, `wrap` and `apply_batch`, one after the other.

    `apply` returns when a batch's effects are committed, and raises when it is to be fetched again.
    """

    def __init__(
        self, *, kafka: KafkaSettings, apply: Callable[[Sequence[Record]], Awaitable[None]], unhurried: bool
    ) -> None:
        self._kafka, self._apply, self._unhurried = kafka, apply, unhurried
        self._consumer: AIOKafkaConsumer | None = None
        self.ahead, self.place = Prefetch(self._fetch), AppliedOffsets()
        self._current: dict[str, float] = {}
        """Of the batch that is being applied, as `Batch.oldest` says it."""
        self._most = FIRST_RECORDS  # nobody knows yet how large they are
        self._heard_at = 0.0
        self._told_at = 0.0

    def oldest(self, topic: str, now: float) -> float:
        """When the oldest record of this topic that is fetched and not applied was sent, or `now` (both seconds)."""
        return min(self._current.get(topic, now), self.ahead.oldest.get(topic, now))

    async def take(self, consumer: AIOKafkaConsumer) -> Batch:
        """The next batch; empty when nothing came for a while. Raises KafkaError and ConsumerStoppedError."""
        self._consumer = consumer
        await self._tell_place(consumer)
        return await self.ahead.take()

    async def _fetch(self) -> Batch:
        assert self._consumer is not None
        consumer, reading = self._consumer, self.place.reading
        try:
            rows = await corrupt.fetch(consumer, timeout_ms=LISTEN_MS, max_records=self._most)
        except KafkaError as error:
            log.error("nothing can be fetched", error=repr(error)[:200])  # FastStream only waits and tries again
            raise
        self._pace(consumer, len(rows))
        if rows:
            # As many of the next as would fit if they were like these.
            size = sum(len(row.value) for row in rows if row.value) / len(rows)
            self._most = max(1, min(MAX_RECORDS, int(BATCH_BYTES / max(size, 1))))
        try:
            batch = await Batch.unpack(rows)
        except Exception as error:
            # A mistake of ours: they are fetched again, and nothing after them is applied.
            log.exception("what was fetched cannot be read", records=len(rows))
            corrupt.go_back(consumer, {TopicPartition(r.topic, r.partition): r.offset for r in reversed(rows)})
            raise KafkaError(f"records cannot be read: {type(error).__name__}") from error
        batch.reading = reading
        return batch

    async def _tell_place(self, consumer: AIOKafkaConsumer) -> None:
        """Of what has been applied, whatever was fetched since."""
        if not self.place.applied or time.monotonic() - self._told_at < COMMIT_EVERY_S:
            return
        assigned = consumer.assignment()
        try:
            if places := {place: at for place, at in self.place.applied.items() if place in assigned}:
                await consumer.commit(places)
            self.place.applied = {}
        except KafkaError as error:
            log.info("place not told", error=type(error).__name__)
        self._told_at = time.monotonic()

    def _pace(self, consumer: AIOKafkaConsumer, heard: int) -> None:
        """How long the next long polls may take: little in ordinary traffic, more at night and with a whole backlog."""
        now = time.monotonic()
        if heard:
            self._heard_at = now
        resting = heard >= BACKLOG_RECORDS or now - self._heard_at > REST_AFTER_S
        wait_ms = self._kafka.rest_wait_ms if resting else self._kafka.fetch_wait_ms
        set_fetch_wait(consumer, self._kafka.unhurried_wait_ms if self._unhurried else wait_ms)

    async def wrap(self, batch: Batch) -> KafkaAckableMessage:
        """For FastStream, whose own parser decodes every header as UTF-8 and would raise for ever on a stranger's."""
        message = _Message(
            body=b"", headers={}, raw_message=batch, message_id="", content_type=None, consumer=self._consumer
        )
        message.give_back = partial(self._give_back, batch)
        return message

    async def apply_batch(self, batch: Batch) -> None:
        """Apply it to the end. Raises what `apply` raises: then FastStream has it given back."""
        self._current = batch.oldest
        try:
            await self._apply(batch)
        except asyncio.CancelledError as inner:
            if (us := asyncio.current_task()) is None or us.cancelling():
                raise
            # A client library's inner cancellation is not ours: FastStream would end listening without a word.
            raise RuntimeError("applying was cancelled from inside") from inner
        finally:
            self._current = {}
        self.place.move(batch)

    async def _give_back(self, batch: Batch) -> None:
        """Fetch it again, and what was fetched after it: applied and told before it, that would leave it out."""
        log.error("a batch is given back and fetched again", records=len(batch))
        assert self._consumer is not None
        try:
            with contextlib.suppress(KafkaError, ConsumerStoppedError):  # then nothing was fetched after it
                corrupt.go_back(self._consumer, (await self.ahead.rest()).starts)
        finally:
            corrupt.go_back(self._consumer, batch.starts)

    async def begin_again(self, consumer: AIOKafkaConsumer, places: set[TopicPartition]) -> None:
        """Read these partitions from their oldest record. Raises KafkaError when they were taken from us meanwhile."""
        self.place.begin()
        if not await consumer.seek_to_beginning(*places):
            raise KafkaError("not read again: the partitions are another's now")


class _Message(KafkaAckableMessage):
    """A batch as FastStream settles it: our place is told by `BatchReader`, and what goes back never goes forward."""

    give_back: Callable[[], Awaitable[None]]

    async def ack(self) -> None:
        await StreamMessage.ack(self)

    async def nack(self) -> None:
        await self.give_back()
        await StreamMessage.nack(self)
