"""The consumer with a real database: events act once and in order, are held or parked, and survive failures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from shared.contract.envelope import Received, Record
from shared.contract.events import SUBMISSIONS, SubmissionHeartbeat, WithdrawalRequested
from shared.inbox.consumer import _Tripped
from shared.inbox.parking_breaker import ParkingBreaker
from shared.postgres.writes import Writes
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.records import NOON, foreign_record, record
from tests.shared.world import doubles, effects, held, parked

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx


# ---- in order, once ----------------------------------------------------------------------------------------------


async def test_a_batch_takes_effect_in_order_and_a_repeat_has_none(pool: Pool) -> None:
    first, second = uuid4(), uuid4()
    batch = [record(first, 1), record(second, 1), record(first, 2)]
    consumer = world.consumer(pool)
    await consumer.apply(batch)
    await consumer.apply(batch)
    done = await effects(pool)
    assert [n for d, n in done if d == first] == [1, 2]
    assert [n for d, n in done if d == second] == [1]
    log = await pool.fetch("select dossier_id, sequence, times from proof.applied")
    assert sorted(map(tuple, log)) == sorted([(first, 1, 1), (first, 2, 1), (second, 1, 1)])
    assert await doubles(pool) == 0


async def test_an_early_event_is_held_over_batches_and_applied_with_the_one_it_waited_for(pool: Pool) -> None:
    dossier_id = uuid4()
    consumer = world.consumer(pool)
    await consumer.apply([record(dossier_id, 3)])
    await consumer.apply([record(dossier_id, 2)])
    assert await effects(pool) == []
    assert await held(pool) == {(dossier_id, 2): "gap", (dossier_id, 3): "gap"}
    await consumer.apply([record(dossier_id, 1)])
    assert await effects(pool) == [(dossier_id, n) for n in (1, 2, 3)]
    assert await held(pool) == {}


async def test_two_consumers_that_meet_a_new_dossier_at_once_do_not_miss_each_other(pool: Pool) -> None:
    """Without a row to lock, the event 2 would be held for ever beside the event 1 that is being applied."""
    one, other = world.consumer(pool), world.consumer(pool)
    dossiers = [uuid4() for _ in range(60)]
    for dossier_id in dossiers:
        await asyncio.gather(one.apply([record(dossier_id, 1)]), other.apply([record(dossier_id, 2)]))
    assert await held(pool) == {}
    assert sorted(await effects(pool)) == sorted((d, n) for d in dossiers for n in (1, 2))


async def test_the_effect_and_the_stream_position_commit_together(pool: Pool) -> None:
    """The connection dies after the effect is written and before the commit: nothing of it remains."""
    dossier_id = uuid4()
    opened: list[int] = []

    class DiesOnce(world.Effects):
        async def save(self, tx: Tx, writes: Writes) -> Sequence[Any]:
            outgoing = await super().save(tx, writes)
            if len(opened) == 1:
                await pool.execute("select pg_terminate_backend($1)", opened[0])
            return outgoing

    async def open_unit(tx: Tx, events: Sequence[Received]) -> world.Effects:
        opened.append(await tx.fetchval("select pg_backend_pid()"))
        return DiesOnce()

    await world.consumer(pool, open_unit=open_unit).apply([record(dossier_id, 1)])
    assert len(opened) == 2
    assert await effects(pool) == [(dossier_id, 1)]
    assert await doubles(pool) == 0


async def test_committed_is_called_after_a_commit_and_never_after_a_rollback(pool: Pool) -> None:
    units: list[world.Effects] = []

    class FailsOnce(world.Effects):
        async def save(self, tx: Tx, writes: Writes) -> Sequence[Any]:
            assert self.commits == 0
            await super().save(tx, writes)
            if len(units) == 1:
                raise TimeoutError
            return []

    async def open_unit(tx: Tx, events: Sequence[Received]) -> world.Effects:
        units.append(FailsOnce())
        return units[-1]

    await world.consumer(pool, open_unit=open_unit).apply([record(uuid4(), 1)])
    assert [unit.commits for unit in units] == [0, 1]


async def test_two_processes_with_the_same_new_dossiers_at_once_apply_each_event_once(pool: Pool) -> None:
    """After a rebalance both may have fetched them. No stream has a position yet that could be locked."""
    dossiers = [uuid4() for _ in range(60)]
    first = [record(dossier_id, 1) for dossier_id in dossiers]
    second = [*first[::-1], *(record(dossier_id, 2) for dossier_id in dossiers)]
    await asyncio.gather(*(world.consumer(pool).apply(some) for some in (first, second, first[::-1], second)))
    assert sorted(await effects(pool)) == sorted((dossier_id, n) for dossier_id in dossiers for n in (1, 2))
    assert await doubles(pool) == 0
    assert await pool.fetchval("select count(*) from parked") == 0
    assert await held(pool) == {}


async def test_a_fact_without_a_handler_advances_the_sequence(pool: Pool) -> None:
    dossier_id = uuid4()
    consumer = world.consumer(pool, handlers={})
    await consumer.apply([record(dossier_id, 1), record(dossier_id, 2)])
    assert await pool.fetchval("select last from heads") == 2
    assert await parked(pool) == []


async def test_a_heartbeat_has_no_sequence_and_acts_each_time(pool: Pool) -> None:
    beat = SubmissionHeartbeat(sent_at=NOON)
    batch = [record(uuid4(), 0, fact=beat)] * 2
    await world.consumer(pool).apply(batch)
    assert len(await effects(pool)) == 2
    assert await pool.fetchval("select count(*) from heads") == 0


# ---- poison ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "reason"), [("against the rule", "no-such-thing"), ("a bug", "rule"), ("cannot be stored", "data")]
)
async def test_one_poison_in_a_batch_of_500_parks_alone(pool: Pool, note: str, reason: str) -> None:
    dossiers = [uuid4() for _ in range(250)]
    batch = [record(d, n) for n in (1, 2) for d in dossiers]
    bad = dossiers[137]
    batch[137] = record(bad, 1, note)
    await world.consumer(pool).apply(batch)
    assert await parked(pool) == [(bad, 1, reason)]
    assert await held(pool) == {(bad, 2): "behind"}
    assert sorted(await effects(pool)) == sorted((d, n) for d in dossiers if d != bad for n in (1, 2))


async def test_a_data_error_is_not_blamed_on_the_event_that_released_it(pool: Pool) -> None:
    dossier_id = uuid4()
    consumer = world.consumer(pool)
    await consumer.apply([record(dossier_id, 2, "cannot be stored"), record(dossier_id, 3)])
    async with asyncio.timeout(10):
        await consumer.apply([record(dossier_id, 1)])
    assert await effects(pool) == [(dossier_id, 1)]
    assert await parked(pool) == [(dossier_id, 2, "data")]
    assert await held(pool) == {(dossier_id, 3): "behind"}


async def test_the_poison_of_one_dossier_does_not_stop_another_of_the_same_partition(pool: Pool) -> None:
    good, bad = uuid4(), uuid4()
    consumer = world.consumer(pool)
    await consumer.apply([record(bad, 1, "cannot be stored"), record(good, 1), record(bad, 2), record(good, 2)])
    await consumer.apply([record(good, 3), record(bad, 3)])
    assert [row for row in await effects(pool) if row[0] == good] == [(good, n) for n in (1, 2, 3)]
    assert await held(pool) == {(bad, 2): "behind", (bad, 3): "behind"}


async def test_a_type_this_release_does_not_know_is_parked_and_its_successors_are_held(pool: Pool) -> None:
    dossier_id = uuid4()
    await world.consumer(pool).apply([record(dossier_id, 1, type="DossierDreamt"), record(dossier_id, 2)])
    assert await parked(pool) == [(dossier_id, 1, "unknown-type")]
    assert await held(pool) == {(dossier_id, 2): "behind"}


async def test_a_poison_that_is_sent_again_is_parked_once(pool: Pool) -> None:
    batch = [record(uuid4(), 1, "against the rule"), foreign_record()]
    consumer = world.consumer(pool)
    for _ in range(3):
        await consumer.apply(batch)
    assert len(await parked(pool)) == 2


async def test_a_second_event_under_one_sequence_is_parked_and_blocks_nobody(pool: Pool) -> None:
    dossier_id = uuid4()
    consumer = world.consumer(pool)
    await consumer.apply([record(dossier_id, 1)])
    await consumer.apply([record(dossier_id, 1), record(dossier_id, 2)])
    assert await parked(pool) == [(dossier_id, 1, "identity-conflict")]
    assert await effects(pool) == [(dossier_id, 1), (dossier_id, 2)]


NUL_SOURCE = {"ce_source": b"/hoso/\x00intake"}
STRANGERS = [
    pytest.param(lambda d: foreign_record(), "no-envelope", id="no headers"),
    pytest.param(lambda d: record(d, 1, headers={"ce_id": None}), "no-envelope", id="one header missing"),
    pytest.param(lambda d: record(d, 1, headers={"ce_type": b"\xff\xfe"}), "no-envelope", id="not UTF-8"),
    pytest.param(lambda d: record(d, 1, headers={"ce_source": b"/somebody"}), "unknown-source", id="unknown source"),
    pytest.param(lambda d: record(d, 1, headers=NUL_SOURCE), "unknown-source", id="NUL in a header"),
    pytest.param(lambda d: record(d, 1, key=b"another"), "key-mismatch", id="wrong key"),
    pytest.param(lambda d: record(d, 1, headers={"ce_sequence": b"-1"}), "no-envelope", id="not a sequence"),
    pytest.param(lambda d: record(d, 0), "no-envelope", id="sequence 0"),
    pytest.param(lambda d: record(d, 1, headers={"ce\x00": b"x", "ce_id": None}), "no-envelope", id="NUL in a name"),
]


@pytest.mark.parametrize(("make", "reason"), STRANGERS)
async def test_a_foreign_record_is_parked_and_blocks_nobody(pool: Pool, make: Any, reason: str) -> None:
    dossier_id = uuid4()
    await asyncio.wait_for(world.consumer(pool).apply([make(dossier_id), record(dossier_id, 1)]), 5)
    assert [row[2] for row in await parked(pool)] == [reason]
    assert await effects(pool) == [(dossier_id, 1)]


async def test_an_unknown_type_with_a_nul_in_its_name_is_parked_too(pool: Pool) -> None:
    dossier_id = uuid4()
    consumer = world.consumer(pool)
    await asyncio.wait_for(consumer.apply([record(dossier_id, 1, headers={"ce_type": b"vn.hoso.\x00.v1"})]), 5)
    assert await parked(pool) == [(dossier_id, 1, "unknown-type")]


# ---- transient errors ------------------------------------------------------------------------------------------------

TRANSIENT = [
    asyncpg.DeadlockDetectedError("deadlock"),
    asyncpg.SerializationError("could not serialize"),
    asyncpg.LockNotAvailableError("lock timeout"),
    asyncpg.QueryCanceledError("statement timeout"),
    asyncpg.DiskFullError("no space left"),
    asyncpg.TooManyConnectionsError("too many"),
    asyncpg.AdminShutdownError("shutdown"),
    asyncpg.ReadOnlySQLTransactionError("read only"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InvalidCachedStatementError("cached plan must not change result type"),
    ConnectionResetError(),
    TimeoutError(),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
async def test_a_transient_error_is_tried_again_and_parks_nothing(pool: Pool, error: Exception) -> None:
    left, sizes = 3, []

    async def open_unit(tx: Tx, events: Sequence[Received]) -> world.Effects:
        nonlocal left
        sizes.append(len(events))
        left -= 1
        if left >= 0:
            raise error
        return world.Effects()

    batch = [record(uuid4(), 1) for _ in range(4)]
    await world.consumer(pool, open_unit=open_unit).apply(batch)
    assert len(await effects(pool)) == 4
    assert await parked(pool) == []
    assert sizes == [4, 4, 4, 4], "the batch is never split for a transient error"


async def test_a_transient_error_that_lasts_is_raised_so_that_the_batch_is_fetched_again(pool: Pool) -> None:
    async def open_unit(tx: Tx, events: Sequence[Received]) -> world.Effects:
        raise ConnectionResetError

    consumer = world.consumer(pool, open_unit=open_unit, patience_s=0.3)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(consumer.apply([record(uuid4(), 1)]), 10)
    assert await parked(pool) == []


# ---- the parking breaker ---------------------------------------------------------------------------------------------


async def test_above_five_per_cent_and_twenty_parked_the_consumer_stops_and_parks_nothing_more(pool: Pool) -> None:
    broken = True

    def handler(unit: world.Effects, event: Received) -> None:
        if broken:
            raise KeyError("the seal key is wrong")
        world.on_withdrawal_requested(unit, event)

    consumer = world.consumer(pool, handlers={WithdrawalRequested: handler}, breaker=ParkingBreaker(window_s=0.3))
    batch = [record(uuid4(), 1) for _ in range(40)]
    applying = asyncio.create_task(consumer.apply(batch))
    await wait_until(lambda: consumer._metrics.brake._value.get() == 1)
    assert await parked(pool) == []
    broken = False
    await asyncio.wait_for(applying, 5)
    assert len(await effects(pool)) == 40
    assert consumer._metrics.brake._value.get() == 0


@pytest.mark.parametrize(("good", "bad"), [(0, 19), (500, 24)])
async def test_fewer_than_twenty_or_less_than_five_per_cent_are_parked_and_the_breaker_stays_closed(
    pool: Pool, good: int, bad: int
) -> None:
    batch = [record(uuid4(), 1) for _ in range(good)] + [record(uuid4(), 1, "against the rule") for _ in range(bad)]
    await asyncio.wait_for(world.consumer(pool).apply(batch), 20)
    assert len(await parked(pool)) == bad


async def test_foreign_records_are_not_counted_again_each_time_they_are_read(pool: Pool) -> None:
    """Thirty of them in a topic that is read again from its start do not stop the consumer for ever."""
    consumer = world.consumer(pool, breaker=ParkingBreaker(window_s=0.2))
    batch: list[Record] = [foreign_record(str(n)) for n in range(30)]
    await asyncio.wait_for(consumer.apply(batch), 5)
    assert len(await parked(pool)) == 30


async def test_conflicting_events_that_are_read_again_block_nobody(pool: Pool) -> None:
    """They were parked one by one over months; when the log is read again, all come at once."""
    breaker = ParkingBreaker(window_s=0.2)
    consumer = world.consumer(pool, breaker=breaker, patience_s=1.0)
    log = [record(dossier_id, 1) for dossier_id in (uuid4() for _ in range(25)) for _ in range(2)]
    for event in log:
        await consumer.apply([event])
        breaker.reset()
    assert [row[2] for row in await parked(pool)] == ["identity-conflict"] * 25
    newcomer = uuid4()
    await consumer.apply([*log, record(newcomer, 1)])
    assert (newcomer, 1) in await effects(pool)
    assert len(await parked(pool)) == 25


async def test_a_consumer_with_an_open_breaker_gives_its_batch_back_before_the_broker_takes_it_for_dead(
    pool: Pool,
) -> None:
    consumer = world.consumer(pool, breaker=ParkingBreaker(window_s=0.1), patience_s=0.3)
    with pytest.raises(_Tripped):
        await asyncio.wait_for(consumer.apply([record(uuid4(), 1, "a bug") for _ in range(40)]), 5)
    assert await parked(pool) == []


async def test_a_parked_record_has_the_reason_and_no_personal_data(pool: Pool) -> None:
    await world.consumer(pool).apply([record(uuid4(), 1, "cannot be stored"), record(uuid4(), 1, "a bug")])
    details = {row[0]: row[1] for row in await pool.fetch("select reason, detail from parked")}
    assert details == {"data": "CheckViolationError 23514", "rule": "KeyError"}
    assert await pool.fetchval("select count(*) from parked where topic = $1", SUBMISSIONS) == 2
