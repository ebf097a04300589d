"""What one consumer reads: fetched ahead, applied, its place told, and given back when it failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError

from shared.contract.envelope import Record
from shared.contract.events import SUBMISSIONS
from shared.contract.partitions import lane_of
from shared.kafka import batch_reader
from shared.kafka.batch_reader import COMMIT_EVERY_S
from shared.kafka.prefetch import Batch, Prefetch
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.listening import all_heard, send
from tests.shared.telling import record
from tests.shared.world import doubles, effects, held

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


async def test_the_place_told_never_passes_what_was_applied(
    listen: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told ahead of its effect, a record would be lost by whoever dies between; told at last, it is not heard again."""
    apply, applied = world.consumer(pool).apply, 0
    ends: dict[TopicPartition, int] = {}
    told: list[tuple[int, int]] = []
    commit = AIOKafkaConsumer.commit

    async def slowly(records: Sequence[Record]) -> None:
        nonlocal applied
        await asyncio.sleep(COMMIT_EVERY_S / 4)
        await apply(records)
        applied += len(records)

    async def watched(self: AIOKafkaConsumer, places: dict[TopicPartition, int]) -> None:
        ends.update(places)
        told.append((sum(ends.values()), applied))
        await commit(self, places)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", watched)
    listen(slowly)
    dossiers = [uuid4() for _ in range(10)]
    for sequence in range(1, 9):
        await send(producer, [record(d, sequence) for d in dossiers])
        await wait_until(lambda: applied == sequence * 10, 20)  # noqa: B023 - awaited before it changes
    await wait_until(lambda: told and told[-1][1] == 80, 20)
    assert all(place == done for place, done in told), told
    assert len(told) > 1


async def test_the_next_batch_is_here_while_one_is_applied_and_is_not_older_than_it_says(
    listen: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    """Taken in turns, PostgreSQL and we wait for each other; and what is fetched early is as unprocessed as before."""
    apply, held_up, go_on = world.consumer(pool).apply, asyncio.Event(), asyncio.Event()

    async def wait_first(records: Sequence[Record]) -> None:
        held_up.set()
        await go_on.wait()
        await apply(records)

    dossier_id = uuid4()
    await send(producer, [record(dossier_id, 1)])
    listener = listen(wait_first)
    await asyncio.wait_for(held_up.wait(), 20)
    first = listener.subscription._reading._current[SUBMISSIONS]
    await send(producer, [record(dossier_id, 2)])
    await wait_until(lambda: listener.subscription._reading.ahead.oldest, 20, what="the next one is here")
    assert listener.subscription._reading.ahead.oldest[SUBMISSIONS] >= first
    gauge = listener.subscription._metrics.oldest_unprocessed.labels(SUBMISSIONS)._value
    await wait_until(lambda: gauge.get() == pytest.approx(first), 20)
    go_on.set()
    await all_heard(pool, [(dossier_id, 1), (dossier_id, 2)])
    await wait_until(lambda: not listener.subscription._reading.ahead.oldest, 20)


@pytest.mark.parametrize("why", [RuntimeError("once"), asyncio.CancelledError()], ids=["raised", "cancelled"])
async def test_what_was_fetched_after_a_batch_that_failed_is_not_told_before_it(
    why: BaseException, listen: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next batch is here already when one fails. Applied and told first, the failed one would be lost with us."""
    monkeypatch.setattr(batch_reader, "MAX_RECORDS", 10)
    monkeypatch.setattr(batch_reader, "FIRST_RECORDS", 1)
    monkeypatch.setattr(batch_reader, "COMMIT_EVERY_S", 0.0)
    apply, failing = world.consumer(pool).apply, True
    dossiers = [uuid4() for _ in range(40)]  # of all partitions: the next batch has some that the failed one has not
    ends: dict[TopicPartition, int] = {}
    told: list[tuple[int, int]] = []
    commit = AIOKafkaConsumer.commit

    async def sometimes(records: Sequence[Record]) -> None:
        nonlocal failing
        if failing and len(await effects(pool)) >= 20:
            failing = False
            await wait_until(lambda: listener.subscription._reading.ahead.oldest, 20, what="the next one is fetched")
            raise why
        await apply(records)

    async def watched(self: AIOKafkaConsumer, places: dict[TopicPartition, int]) -> None:
        ends.update(places)
        told.append((sum(ends.values()), len(await effects(pool))))
        await commit(self, places)

    await send(producer, [record(d, 1) for d in dossiers])
    monkeypatch.setattr(AIOKafkaConsumer, "commit", watched)
    listener = listen(sometimes)
    await all_heard(pool, [(d, 1) for d in dossiers])
    await wait_until(lambda: told and told[-1][0] == 40, 20)
    assert not failing
    assert all(place <= done for place, done in told), told


@pytest.mark.parametrize("given_back", [False, True], ids=["read", "while another is given back"])
async def test_a_batch_that_cannot_be_read_by_a_mistake_of_ours_is_fetched_again(
    given_back: bool, listen: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer's position has passed it by then: what comes after it must not be told before it."""
    apply, failing, mistakes, unpack = world.consumer(pool).apply, given_back, 0, Batch.unpack

    async def sometimes(records: Sequence[Record]) -> None:
        nonlocal failing
        if failing:
            failing = False
            await wait_until(lambda: mistakes, 20, what="the next one is fetched")
            raise RuntimeError("once")
        await apply(records)

    async def mistaken(rows: Sequence[Any]) -> Batch:
        nonlocal mistakes
        if rows and not mistakes and (not given_back or any(row.offset for row in rows)):
            mistakes += 1
            raise ZeroDivisionError
        return await unpack(rows)

    monkeypatch.setattr(batch_reader, "MAX_RECORDS", 10)
    monkeypatch.setattr(batch_reader, "FIRST_RECORDS", 1)
    monkeypatch.setattr(Batch, "unpack", mistaken)
    dossiers = [one for one in (uuid4() for _ in range(2_000)) if lane_of(str(one)) == 0][:20]
    await send(producer, [record(d, 1) for d in dossiers])
    listen(sometimes)
    await all_heard(pool, [(d, 1) for d in dossiers], 30)
    assert mistakes == 1
    assert not failing


async def test_what_is_given_back_while_the_log_is_read_again_does_not_go_forward(
    listen: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastStream would go to where the batch began, over all that is to be read again before it."""
    monkeypatch.setattr(batch_reader, "MAX_RECORDS", 10)
    monkeypatch.setattr(batch_reader, "FIRST_RECORDS", 1)
    apply, again, held_up = world.consumer(pool).apply, asyncio.Event(), asyncio.Event()
    dossiers = [one for one in (uuid4() for _ in range(2_000)) if lane_of(str(one)) == 0][:20]
    came: list[int] = []

    async def fail_later(records: Sequence[Record]) -> None:
        if records[0].offset and not again.is_set():
            held_up.set()
            await again.wait()
            raise RuntimeError("once")
        await apply(records)
        came.extend(one.offset for one in records)

    await send(producer, [record(d, 1) for d in dossiers])
    listener = listen(fail_later)
    await asyncio.wait_for(held_up.wait(), 20)
    before = len(came)
    listener.subscription._cluster = "a former one"
    await wait_until(lambda: listener.subscription._cluster != "a former one", 20, what="it reads again")
    again.set()
    await wait_until(lambda: set(came[before:]) == set(range(20)), 20, what="all of it came again")


async def test_what_was_fetched_before_the_log_is_read_again_does_not_count_as_read_again(
    listen: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place would be told while everything before it is still to be read: a death then would leave that out."""
    monkeypatch.setattr(batch_reader, "COMMIT_EVERY_S", 0.0)
    apply, again, held_up = world.consumer(pool).apply, asyncio.Event(), asyncio.Event()
    dossiers = [uuid4() for _ in range(20)]
    heard = 0
    told: list[tuple[int, int]] = []
    ends: dict[TopicPartition, int] = {}
    commit = AIOKafkaConsumer.commit

    async def slowly(records: Sequence[Record]) -> None:
        nonlocal heard
        if not again.is_set():
            held_up.set()
            await again.wait()
        else:
            heard += len(records)
        await apply(records)

    async def watched(self: AIOKafkaConsumer, places: dict[TopicPartition, int]) -> None:
        ends.update(places)
        told.append((sum(ends.values()), heard))
        await commit(self, places)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", watched)
    await send(producer, [record(d, 1) for d in dossiers])
    listener = listen(slowly)
    await asyncio.wait_for(held_up.wait(), 20)
    listener.subscription._cluster = "a former one"
    await wait_until(lambda: listener.subscription._cluster != "a former one", 20, what="it reads again")
    again.set()
    await wait_until(lambda: told and told[-1][0] == 20, 20)
    assert all(place <= since for place, since in told), told
    assert await doubles(pool) == 0


async def test_a_commit_that_fails_costs_repeats_and_nothing_else(
    listen: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done is what the database says, never what was acknowledged: the next process hears it all again."""
    refused = 0

    async def refuse(self: AIOKafkaConsumer, offsets: Any = None) -> None:
        nonlocal refused
        refused += 1
        raise CommitFailedError("the group has moved on")

    monkeypatch.setattr(AIOKafkaConsumer, "commit", refuse)
    dossiers = [uuid4() for _ in range(10)]
    before = listen()
    for sequence in (1, 2, 3):
        await send(producer, [record(d, sequence) for d in dossiers])
        await all_heard(pool, [(d, n) for n in range(1, sequence + 1) for d in dossiers])
    await before.stop()
    assert refused
    monkeypatch.undo()
    apply, came = world.consumer(pool).apply, 0

    async def counting(records: Sequence[Record]) -> None:
        nonlocal came
        await apply(records)
        came += len(records)

    listen(counting)
    await wait_until(lambda: came >= 30, 20)
    assert sorted(await effects(pool)) == sorted((d, n) for n in (1, 2, 3) for d in dossiers)
    assert await doubles(pool) == 0
    assert await held(pool) == {}


async def test_the_end_of_reading_does_not_swallow_the_services_own() -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def stubborn() -> Batch:
        begun.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            await over.wait()

    ahead = Prefetch(stubborn)
    coming = ahead._next = asyncio.create_task(ahead._get())
    await asyncio.wait_for(begun.wait(), 5)
    dropping = asyncio.create_task(ahead.drop())
    await wait_until(coming.cancelling, 5)
    dropping.cancel()
    await asyncio.wait({dropping}, timeout=5)
    over.set()
    await asyncio.wait({coming}, timeout=5)
    assert dropping.cancelled()
