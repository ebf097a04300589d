"""The batches of one consumer: fetched ahead, applied, their offsets committed, and fetched again after a failure."""

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
from tests.shared.group_members import send, wait_until_applied
from tests.shared.records import record
from tests.shared.world import doubles, effects, held

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


async def test_committed_offsets_never_pass_the_applied_records(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an offset is committed before the effect, a crash loses the record."""
    apply, applied = world.consumer(pool).apply, 0
    ends: dict[TopicPartition, int] = {}
    commits: list[tuple[int, int]] = []
    commit = AIOKafkaConsumer.commit

    async def slowly(records: Sequence[Record]) -> None:
        nonlocal applied
        await asyncio.sleep(COMMIT_EVERY_S / 4)
        await apply(records)
        applied += len(records)

    async def watched(self: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        ends.update(offsets)
        commits.append((sum(ends.values()), applied))
        await commit(self, offsets)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", watched)
    start_member(slowly)
    dossiers = [uuid4() for _ in range(10)]
    for sequence in range(1, 9):
        await send(producer, [record(d, sequence) for d in dossiers])
        await wait_until(lambda: applied == sequence * 10, 20)  # noqa: B023 - awaited before it changes
    await wait_until(lambda: commits and commits[-1][1] == 80, 20)
    assert all(offset == done for offset, done in commits), commits
    assert len(commits) > 1


async def test_the_next_batch_is_fetched_while_one_is_applied_and_counts_in_the_age(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    """Otherwise the service and PostgreSQL wait for each other. A prefetched record still counts as unprocessed."""
    apply, held_up, go_on = world.consumer(pool).apply, asyncio.Event(), asyncio.Event()

    async def wait_first(records: Sequence[Record]) -> None:
        held_up.set()
        await go_on.wait()
        await apply(records)

    dossier_id = uuid4()
    await send(producer, [record(dossier_id, 1)])
    member = start_member(wait_first)
    await asyncio.wait_for(held_up.wait(), 20)
    first = member.subscription._reader._applying[SUBMISSIONS]
    await send(producer, [record(dossier_id, 2)])
    await wait_until(lambda: member.subscription._reader.prefetch.oldest, 20, what="the next batch is fetched")
    assert member.subscription._reader.prefetch.oldest[SUBMISSIONS] >= first
    gauge = member.subscription._metrics.oldest_unprocessed.labels(SUBMISSIONS)._value
    await wait_until(lambda: gauge.get() == pytest.approx(first), 20)
    go_on.set()
    await wait_until_applied(pool, [(dossier_id, 1), (dossier_id, 2)])
    await wait_until(lambda: not member.subscription._reader.prefetch.oldest, 20)


@pytest.mark.parametrize("why", [RuntimeError("once"), asyncio.CancelledError()], ids=["raised", "cancelled"])
async def test_a_batch_fetched_after_a_failed_one_is_not_committed_before_it(
    why: BaseException, start_member: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a batch fails, the next one is already fetched. If it is committed first, a crash loses the failed one."""
    monkeypatch.setattr(batch_reader, "MAX_RECORDS", 10)
    monkeypatch.setattr(batch_reader, "FIRST_RECORDS", 1)
    monkeypatch.setattr(batch_reader, "COMMIT_EVERY_S", 0.0)
    apply, failing = world.consumer(pool).apply, True
    dossiers = [uuid4() for _ in range(40)]  # of all partitions: the next batch has some that the failed one has not
    ends: dict[TopicPartition, int] = {}
    commits: list[tuple[int, int]] = []
    commit = AIOKafkaConsumer.commit

    async def sometimes(records: Sequence[Record]) -> None:
        nonlocal failing
        if failing and len(await effects(pool)) >= 20:
            failing = False
            await wait_until(lambda: member.subscription._reader.prefetch.oldest, 20, what="the next batch is fetched")
            raise why
        await apply(records)

    async def watched(self: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        ends.update(offsets)
        commits.append((sum(ends.values()), len(await effects(pool))))
        await commit(self, offsets)

    await send(producer, [record(d, 1) for d in dossiers])
    monkeypatch.setattr(AIOKafkaConsumer, "commit", watched)
    member = start_member(sometimes)
    await wait_until_applied(pool, [(d, 1) for d in dossiers])
    await wait_until(lambda: commits and commits[-1][0] == 40, 20)
    assert not failing
    assert all(offset <= done for offset, done in commits), commits


@pytest.mark.parametrize("another_failed", [False, True], ids=["alone", "while another batch is fetched again"])
async def test_a_batch_that_cannot_be_parsed_because_of_a_bug_is_fetched_again(
    another_failed: bool, start_member: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer's position has passed it by then, so later records must not be committed before it."""
    apply, failing, mistakes, unpack = world.consumer(pool).apply, another_failed, 0, Batch.unpack

    async def sometimes(records: Sequence[Record]) -> None:
        nonlocal failing
        if failing:
            failing = False
            await wait_until(lambda: mistakes, 20, what="the next batch is fetched")
            raise RuntimeError("once")
        await apply(records)

    async def mistaken(rows: Sequence[Any]) -> Batch:
        nonlocal mistakes
        if rows and not mistakes and (not another_failed or any(row.offset for row in rows)):
            mistakes += 1
            raise ZeroDivisionError
        return await unpack(rows)

    monkeypatch.setattr(batch_reader, "MAX_RECORDS", 10)
    monkeypatch.setattr(batch_reader, "FIRST_RECORDS", 1)
    monkeypatch.setattr(Batch, "unpack", mistaken)
    dossiers = [one for one in (uuid4() for _ in range(2_000)) if lane_of(str(one)) == 0][:20]
    await send(producer, [record(d, 1) for d in dossiers])
    start_member(sometimes)
    await wait_until_applied(pool, [(d, 1) for d in dossiers], 30)
    assert mistakes == 1
    assert not failing


async def test_a_batch_that_fails_while_the_log_is_read_again_does_not_move_a_partition_forward(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastStream would seek to the start of the batch and so skip the earlier records that are to be read again."""
    monkeypatch.setattr(batch_reader, "MAX_RECORDS", 10)
    monkeypatch.setattr(batch_reader, "FIRST_RECORDS", 1)
    apply, again, held_up = world.consumer(pool).apply, asyncio.Event(), asyncio.Event()
    dossiers = [one for one in (uuid4() for _ in range(2_000)) if lane_of(str(one)) == 0][:20]
    received: list[int] = []

    async def fail_later(records: Sequence[Record]) -> None:
        if records[0].offset and not again.is_set():
            held_up.set()
            await again.wait()
            raise RuntimeError("once")
        await apply(records)
        received.extend(one.offset for one in records)

    await send(producer, [record(d, 1) for d in dossiers])
    member = start_member(fail_later)
    await asyncio.wait_for(held_up.wait(), 20)
    before = len(received)
    member.subscription._cluster = "a former one"
    await wait_until(lambda: member.subscription._cluster != "a former one", 20, what="the log is read again")
    again.set()
    await wait_until(lambda: set(received[before:]) == set(range(20)), 20, what="every record came again")


async def test_a_batch_fetched_before_the_log_is_read_again_does_not_count_as_read_again(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its offsets come after records that are still to be read again. If they are committed, a crash loses those."""
    monkeypatch.setattr(batch_reader, "COMMIT_EVERY_S", 0.0)
    apply, again, held_up = world.consumer(pool).apply, asyncio.Event(), asyncio.Event()
    dossiers = [uuid4() for _ in range(20)]
    received = 0
    commits: list[tuple[int, int]] = []
    ends: dict[TopicPartition, int] = {}
    commit = AIOKafkaConsumer.commit

    async def slowly(records: Sequence[Record]) -> None:
        nonlocal received
        if not again.is_set():
            held_up.set()
            await again.wait()
        else:
            received += len(records)
        await apply(records)

    async def watched(self: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        ends.update(offsets)
        commits.append((sum(ends.values()), received))
        await commit(self, offsets)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", watched)
    await send(producer, [record(d, 1) for d in dossiers])
    member = start_member(slowly)
    await asyncio.wait_for(held_up.wait(), 20)
    member.subscription._cluster = "a former one"
    await wait_until(lambda: member.subscription._cluster != "a former one", 20, what="the log is read again")
    again.set()
    await wait_until(lambda: commits and commits[-1][0] == 20, 20)
    assert all(offset <= since for offset, since in commits), commits
    assert await doubles(pool) == 0


async def test_a_failed_offset_commit_only_causes_repeats(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database knows what was applied, not the committed offsets. The next process receives everything again."""
    refused = 0

    async def refuse(self: AIOKafkaConsumer, offsets: Any = None) -> None:
        nonlocal refused
        refused += 1
        raise CommitFailedError("the group has moved on")

    monkeypatch.setattr(AIOKafkaConsumer, "commit", refuse)
    dossiers = [uuid4() for _ in range(10)]
    before = start_member()
    for sequence in (1, 2, 3):
        await send(producer, [record(d, sequence) for d in dossiers])
        await wait_until_applied(pool, [(d, n) for n in range(1, sequence + 1) for d in dossiers])
    await before.stop()
    assert refused
    monkeypatch.undo()
    apply, received = world.consumer(pool).apply, 0

    async def counting(records: Sequence[Record]) -> None:
        nonlocal received
        await apply(records)
        received += len(records)

    start_member(counting)
    await wait_until(lambda: received >= 30, 20)
    assert sorted(await effects(pool)) == sorted((d, n) for n in (1, 2, 3) for d in dossiers)
    assert await doubles(pool) == 0
    assert await held(pool) == {}


async def test_dropping_the_prefetched_batch_does_not_swallow_a_cancellation_of_its_caller() -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def stubborn() -> Batch:
        begun.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            await end.wait()

    prefetch = Prefetch(stubborn)
    coming = prefetch._next = asyncio.create_task(prefetch._get())
    await asyncio.wait_for(begun.wait(), 5)
    dropping = asyncio.create_task(prefetch.drop())
    await wait_until(coming.cancelling, 5)
    dropping.cancel()
    await asyncio.wait({dropping}, timeout=5)
    end.set()
    await asyncio.wait({coming}, timeout=5)
    assert dropping.cancelled()
