"""The next batch: fetched, unpacked and read while PostgreSQL has the last one, so that the two do not take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from aiokafka import TopicPartition

from shared.contract.envelope import Malformed, Received, Record, parse, records_from

A_FEW = 50


class Batch(tuple[Record, ...]):
    """Records fetched together, a partition's in its order, and what each of them says."""

    said: list[Received | Malformed]
    reading: int = 0
    """Of `AppliedOffsets`, when it was fetched."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Batch:
        """Read them; a batch as it is."""
        if isinstance(records, cls):
            return records
        made = cls(records)
        made.said = [read(record) for record in made]
        return made

    @classmethod
    async def unpack(cls, rows: Sequence[Any]) -> Batch:
        """Of aiokafka's consumer records, a few at a time: the batch before it must not wait for its turn."""
        records: list[Record] = []
        said: list[Received | Malformed] = []
        for first in range(0, len(rows), A_FEW):
            some = records_from(rows[first : first + A_FEW])
            records += some
            said += map(read, some)
            await asyncio.sleep(0)
        made = cls(records)
        made.said = said
        return made

    @property
    def starts(self) -> dict[TopicPartition, int]:
        """Each partition's first offset."""
        return {TopicPartition(record.topic, record.partition): record.offset for record in reversed(self)}

    @property
    def ends(self) -> dict[TopicPartition, int]:
        """Where each partition goes on after this batch."""
        return {TopicPartition(record.topic, record.partition): record.offset + 1 for record in self}

    @cached_property
    def oldest(self) -> dict[str, float]:
        """When each topic's first record of this batch was sent (seconds since 1970)."""
        found: dict[str, float] = {}
        for record in self:
            found[record.topic] = min(found.get(record.topic, float("inf")), record.sent_at.timestamp())
        return found


class AppliedOffsets:
    """How far what was read has been applied: what a group tells the broker, so that another goes on from there."""

    def __init__(self) -> None:
        self.reading = 0
        self.applied: dict[TopicPartition, int] = {}
        """Where to go on, of the partitions that moved since the last time it was told."""

    def begin(self) -> None:
        """The log is read from another place from now on: what was fetched before says nothing about this one."""
        self.reading += 1
        self.applied = {}

    def move(self, batch: Batch) -> None:
        """This batch has been applied."""
        if batch.reading == self.reading:
            self.applied |= batch.ends


def read(record: Record) -> Received | Malformed:
    """What a record says, or why it has no place in any sequence."""
    try:
        return parse(record)
    except Malformed as wrong:
        return wrong


class Prefetch:
    """One consumer's next batch. `fetch` gets one, or an empty one when nothing has come for a while."""

    def __init__(self, fetch: Callable[[], Awaitable[Batch]]) -> None:
        self._fetch = fetch
        self._next: asyncio.Task[Batch] | None = None
        self.oldest: dict[str, float] = {}
        """Of the batch that is ready and not taken yet."""

    async def take(self) -> Batch:
        """The next batch; unless it is empty, the one after it is under way from now on. Raises what `fetch` does."""
        batch = await self.rest()
        if batch:
            self._next = asyncio.create_task(self._get())
        return batch

    async def rest(self) -> Batch:
        """The next batch, and none after it is under way. Raises what `fetch` does."""
        coming, self._next = self._next or asyncio.create_task(self._get()), None
        batch = await coming
        self.oldest = {}
        return batch

    async def _get(self) -> Batch:
        batch = await self._fetch()
        self.oldest = batch.oldest
        return batch

    async def drop(self) -> None:
        """Forget it, at the end of its consumer: its records are fetched again by whoever reads next."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})  # which does not take our own cancellation for its
            if not self._next.cancelled():
                self._next.exception()
