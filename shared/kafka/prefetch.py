"""The next batch is fetched, unpacked and parsed while PostgreSQL applies the batch before it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from aiokafka import TopicPartition

from shared.contract.envelope import Malformed, Received, Record, parse, records_from

UNPACK_RECORDS = 50
"""Records to unpack and parse at a time. Between two parts the event loop continues to apply the batch before."""


class Batch(tuple[Record, ...]):
    """Records fetched together, those of a partition in their order."""

    parsed: list[Received | Malformed]
    """For each record its event, or why it has none."""
    generation: int = 0
    """`AppliedOffsets.generation` when the batch was fetched."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Batch:
        """Parse the records; a batch is returned as it is."""
        if isinstance(records, cls):
            return records
        batch = cls(records)
        batch.parsed = [parse_record(record) for record in batch]
        return batch

    @classmethod
    async def unpack(cls, rows: Sequence[Any]) -> Batch:
        """A batch of aiokafka's consumer records, unpacked and parsed a few at a time."""
        records: list[Record] = []
        parsed: list[Received | Malformed] = []
        for first in range(0, len(rows), UNPACK_RECORDS):
            some = records_from(rows[first : first + UNPACK_RECORDS])
            records += some
            parsed += map(parse_record, some)
            await asyncio.sleep(0)
        batch = cls(records)
        batch.parsed = parsed
        return batch

    @property
    def starts(self) -> dict[TopicPartition, int]:
        """Each partition's first offset."""
        return {TopicPartition(record.topic, record.partition): record.offset for record in reversed(self)}

    @property
    def ends(self) -> dict[TopicPartition, int]:
        """Each partition's next offset after this batch."""
        return {TopicPartition(record.topic, record.partition): record.offset + 1 for record in self}

    @cached_property
    def oldest(self) -> dict[str, float]:
        """When the oldest record of each topic was sent (seconds since 1970)."""
        oldest: dict[str, float] = {}
        for record in self:
            oldest[record.topic] = min(oldest.get(record.topic, float("inf")), record.sent_at.timestamp())
        return oldest


class AppliedOffsets:
    """Up to which offset each partition is applied. These offsets are committed, and another member continues there."""

    def __init__(self) -> None:
        self.generation = 0
        self.uncommitted: dict[TopicPartition, int] = {}
        """The next offset of each partition that advanced since the last commit."""

    def restart(self) -> None:
        """Ignore batches that were fetched before, because the partitions are read from other offsets now."""
        self.generation += 1
        self.uncommitted = {}

    def add(self, batch: Batch) -> None:
        """Count a batch that is applied."""
        if batch.generation == self.generation:
            self.uncommitted |= batch.ends


def parse_record(record: Record) -> Received | Malformed:
    """The event in a record, or why the record has none."""
    try:
        return parse(record)
    except Malformed as error:
        return error


class Prefetch:
    """One consumer's next batch. `fetch` returns a batch, or an empty one when no record has come for a while."""

    def __init__(self, fetch: Callable[[], Awaitable[Batch]]) -> None:
        self._fetch = fetch
        self._next: asyncio.Task[Batch] | None = None
        self.oldest: dict[str, float] = {}
        """`Batch.oldest` of the batch that is fetched and not taken yet."""

    async def take(self) -> Batch:
        """The next batch. Unless it is empty, fetching the one after it begins now. Raises what `fetch` raises."""
        batch = await self.take_last()
        if batch:
            self._next = asyncio.create_task(self._get())
        return batch

    async def take_last(self) -> Batch:
        """The next batch; none is fetched after it. Raises what `fetch` raises."""
        coming, self._next = self._next or asyncio.create_task(self._get()), None
        batch = await coming
        self.oldest = {}
        return batch

    async def _get(self) -> Batch:
        batch = await self._fetch()
        self.oldest = batch.oldest
        return batch

    async def drop(self) -> None:
        """Drop the next batch when its consumer ends; the next reader fetches its records again."""
        if self._next is not None:
            self._next.cancel()
            # Unlike `await`, this does not confuse the cancellation of this task with that of the other one.
            await asyncio.wait({self._next})
            if not self._next.cancelled():
                self._next.exception()
