"""Within a lane, the order of ids is the order of commits: a reader that goes by id skips nothing."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest

from shared.contract.envelope import Outgoing, new_id
from shared.contract.events import SubmissionHeartbeat
from shared.contract.partitions import lane_of
from shared.outbox import progress
from shared.outbox import publish as publishing
from shared.outbox.publish import Outbox, Wake
from tests.fixtures.publishing import publish
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.records import NOON, withdrawal
from tests.shared.relaying import advance, sent_row

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

WRITERS = 8
EACH = 60


@pytest.fixture(params=[1, publishing.MIN_COPY_ROWS], ids=["by COPY", "in one statement"], autouse=True)
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """From how many events on they go by COPY: every promise holds either way."""
    monkeypatch.setattr(publishing, "MIN_COPY_ROWS", request.param)


def outgoing(dossier_id: UUID, sequence: int, note: str = "") -> Outgoing:
    return Outgoing(dossier_id, sequence, withdrawal(note), new_id(), new_id())


async def write(pool: Pool, written: list[UUID]) -> None:
    """Transactions that take their time between the insert and the commit."""
    for _ in range(EACH):
        dossiers = [uuid4() for _ in range(random.randint(1, 3))]
        async with pool.acquire() as tx, tx.transaction():
            await publish(tx, [outgoing(dossier_id, 1) for dossier_id in dossiers])
            if random.random() < 0.3:
                await asyncio.sleep(0.002)
        written += dossiers


async def read_by_cursor(pool: Pool, read: list[UUID], writers: asyncio.Future[None]) -> None:
    """Reads each lane upwards from the last id it saw, as the relay and the feed do."""
    at = dict.fromkeys(range(12), 0)
    last_round = False
    while True:
        last_round = last_round or writers.done()
        for lane in at:
            rows = await pool.fetch(
                "select id, dossier_id from events where lane = $1 and id > $2 order by id limit 100", lane, at[lane]
            )
            read += [row["dossier_id"] for row in rows]
            at[lane] = rows[-1]["id"] if rows else at[lane]
        if last_round and writers.done():
            return
        last_round = writers.done()


async def cursor_reader_misses(pool: Pool) -> int:
    written: list[UUID] = []
    read: list[UUID] = []

    async def write_all() -> None:
        await asyncio.gather(*(write(pool, written) for _ in range(WRITERS)))

    writers = asyncio.ensure_future(write_all())
    await read_by_cursor(pool, read, writers)
    assert len(read) == len(set(read))
    return len(set(written) - set(read))


async def test_a_reader_by_id_skips_nothing_while_many_write(pool: Pool) -> None:
    assert await cursor_reader_misses(pool) == 0


async def test_without_the_lane_lock_the_same_reader_would_skip_events(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above is worth something: it sees the accident that the lock prevents."""

    async def write_unlocked(pool: Pool, written: list[UUID]) -> None:
        for _ in range(EACH):
            dossier_id = uuid4()
            async with pool.acquire() as tx, tx.transaction():
                await tx.execute(
                    "insert into events (lane, topic, dossier_id, sequence, ce_id, type, trace_id, data) values"
                    " (0, 'internal.submissions.v1', $1, 1, $1, 'WithdrawalRequested', $1, '{}')",
                    dossier_id,
                )
                if random.random() < 0.3:
                    await asyncio.sleep(0.01)
            written.append(dossier_id)

    monkeypatch.setitem(globals(), "write", write_unlocked)
    assert await cursor_reader_misses(pool) > 0


async def test_transactions_that_append_to_the_same_lanes_in_opposite_orders_do_not_deadlock(pool: Pool) -> None:
    """A third holds a lane in the middle: in any other order than ascending each of the two then holds what the other
    wants."""
    dossiers = sorted((uuid4() for _ in range(60)), key=lambda dossier_id: lane_of(str(dossier_id)))

    async def append_all(order: list[UUID], sequence: int) -> None:
        async with pool.acquire() as tx, tx.transaction():
            await publish(tx, [outgoing(dossier_id, sequence) for dossier_id in order])

    async with pool.acquire() as third, third.transaction():
        await publish(third, [outgoing(dossiers[30], 3)])
        both = asyncio.gather(append_all(dossiers, 1), append_all(dossiers[::-1], 2))
        await wait_until(lambda: pool.fetchval("select count(*) = 2 from pg_locks where not granted"))
    await asyncio.wait_for(both, 10)


async def test_events_keep_the_order_in_which_they_were_appended(pool: Pool) -> None:
    dossier_id = uuid4()
    async with pool.acquire() as tx, tx.transaction():
        lanes = await publish(tx, [outgoing(dossier_id, n) for n in (1, 2, 3)])
    assert lanes == {lane_of(str(dossier_id))}
    rows = await pool.fetch("select sequence from events order by id")
    assert [row[0] for row in rows] == [1, 2, 3]


async def test_a_transaction_that_rolls_back_publishes_nothing(pool: Pool) -> None:
    async def append_and_fail() -> None:
        async with pool.acquire() as tx, tx.transaction():
            await publish(tx, [outgoing(uuid4(), 1)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await append_and_fail()
    assert await pool.fetchval("select count(*) from events") == 0


async def test_a_sequence_cannot_be_used_twice(pool: Pool) -> None:
    dossier_id = uuid4()
    await world.append(pool, (dossier_id, 1))
    with pytest.raises(asyncpg.UniqueViolationError):
        await world.append(pool, (dossier_id, 1))


async def test_an_event_no_broker_would_take_is_refused_before_it_stops_its_lane(pool: Pool) -> None:
    with pytest.raises(ValueError, match="800000"):
        await world.append(pool, (uuid4(), 1), note="x" * 800_001)
    assert await pool.fetchval("select count(*) from events") == 0


async def test_the_oldest_event_stays_readable_after_everything_was_sent(pool: Pool) -> None:
    """A queue that deletes what it sent could not refill a lost broker."""
    dossier_id = uuid4()
    await world.append(pool, (dossier_id, 1))
    lane = lane_of(str(dossier_id))
    sent = await sent_row(pool, dossier_id, 0)
    assert await advance(pool, sent) == ""
    assert await pool.fetchval("select sent_at is not null from proof.events") is True
    assert await progress.save_cluster(pool, "one") is False
    assert await progress.save_cluster(pool, "two") is True
    back = await pool.fetchval("select sent_to from lanes where lane = $1", lane)
    (row,) = (await progress.next_chunks(pool, {lane: back}, 10, 10**6))[lane]
    assert row["id"] == sent.from_id


async def test_a_lane_of_large_events_is_taken_in_small_chunks(pool: Pool) -> None:
    """By number alone, the chunks of twelve lanes could hold gigabytes."""
    dossier_id = uuid4()
    await world.append(pool, *((dossier_id, n) for n in range(1, 11)), note="x" * 300_000)
    lanes = {lane_of(str(dossier_id)): 0}
    assert [len(rows) for rows in (await progress.next_chunks(pool, lanes, 2_000, 1_000_000)).values()] == [4]
    assert [len(rows) for rows in (await progress.next_chunks(pool, lanes, 2_000, 1)).values()] == [1]


# ---- waking the relay ------------------------------------------------------------------------------------------------


async def notifications(pool: Pool, wake: Wake, lanes: set[int], times: int = 1) -> int:
    """How many NOTIFYs `times` wake-ups cause within a quarter of a second."""
    heard = 0

    def count(*_: object) -> None:
        nonlocal heard
        heard += 1

    async with pool.acquire() as listener:
        await listener.add_listener(publishing.CHANNEL, count)
        for _ in range(times):
            wake(lanes)
        await wait_until(lambda: heard or not (lanes - wake.owns()))
        marker = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.25, marker.set_result, None)
        await marker
        await listener.remove_listener(publishing.CHANNEL, count)
    return heard


async def test_many_commits_cause_one_notify_and_own_lanes_none(pool: Pool) -> None:
    wake = Wake(lambda: pool)
    assert await notifications(pool, wake, {1, 2}, times=200) == 1
    wake.owns = lambda: frozenset({1, 2})
    assert await notifications(pool, wake, {1, 2}, times=200) == 0


async def test_between_two_notifies_of_a_process_there_is_a_pause_however_often_it_commits(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "NOTIFY_EVERY_S", 0.2)
    wake, heard_at = Wake(lambda: pool), list[float]()

    def hear(*_: object) -> None:
        heard_at.append(asyncio.get_running_loop().time())

    def commit_until_two_are_heard() -> bool:
        wake({1})
        return len(heard_at) >= 2

    async with pool.acquire() as listener:
        await listener.add_listener(publishing.CHANNEL, hear)
        await wait_until(commit_until_two_are_heard, every_s=0.001)
        await listener.remove_listener(publishing.CHANNEL, hear)
    assert heard_at[1] - heard_at[0] > 0.1


async def test_a_wake_up_from_elsewhere_is_not_passed_on(pool: Pool) -> None:
    """Each NOTIFY answered with a NOTIFY would never end."""
    wake = Wake(lambda: pool)

    def answer(*_: object) -> None:
        wake.notified({1})

    async with pool.acquire() as listener:
        await listener.add_listener(publishing.CHANNEL, answer)
        assert await notifications(pool, wake, {5}) == 1
        await listener.remove_listener(publishing.CHANNEL, answer)
    assert 1 in wake.take()


async def test_the_relay_is_woken_after_the_commit_and_never_after_a_rollback(pool: Pool) -> None:
    """Woken earlier, it would look before the event is there and find it only at the next poll."""
    steps: list[str] = []
    dossier_id = uuid4()

    class Watched(Wake):
        def __call__(self, lanes: set[int]) -> None:
            steps.append("woken")
            super().__call__(lanes)

    async def publish_one(outbox: Outbox, *, fail: bool) -> None:
        async with outbox.transaction() as transaction:
            transaction.on_commit(lambda: steps.append(f"in transaction: {transaction.tx.is_in_transaction()}"))
            transaction.append([outgoing(dossier_id, 1)])
            await transaction.flush()
            if fail:
                raise ZeroDivisionError

    outbox = Outbox(lambda: pool)
    outbox.wake = Watched(lambda: pool)
    with pytest.raises(ZeroDivisionError):
        await publish_one(outbox, fail=True)
    assert (steps, outbox.wake.take()) == ([], set())
    await publish_one(outbox, fail=False)
    assert steps == ["in transaction: False", "woken"]
    assert outbox.wake.take() == {lane_of(str(dossier_id))}


async def test_what_is_committed_while_the_relay_looks_is_not_forgotten(pool: Pool) -> None:
    wake = Wake(lambda: pool)
    wake({3})
    assert wake.take() == {3}
    wake({4})
    waiting = asyncio.create_task(wake.wait())
    waiting.cancel()
    wake({5})
    await asyncio.wait_for(wake.wait(), 1)
    assert wake.take() == {4, 5}


async def test_a_heartbeat_is_appended_by_its_key(pool: Pool) -> None:
    async with pool.acquire() as tx, tx.transaction():
        beat = Outgoing(None, 0, SubmissionHeartbeat(sent_at=NOON), new_id(), new_id(), key="heartbeat")
        assert await publish(tx, [beat]) == {lane_of("heartbeat")}
    assert await pool.fetchval("select count(*) from proof.events") == 0, "heartbeats are in no proof"
