"""The relay against a real database and a real broker: each lane in order, by one owner, and again when it was lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from shared import cursors, relay
from shared.database import open_connection
from shared.envelope import lane_of
from shared.events import PARTITIONS, STATE, SUBMISSIONS, WithdrawalRequested
from shared.kafka import KafkaSettings, ensure_topics, find_shortened
from shared.metrics import DeliveryMetrics, StageMetrics
from shared.outbox import CHANNEL, Wake, stage
from shared.packing import StateRecord
from shared.relay import Relay
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.reading import first_sightings, read_topic
from tests.shared.telling import told
from tests.shared.test_outbox import outgoing

if TYPE_CHECKING:
    from shared.database import Pool
    from tests.fixtures.brokers import Apache, Embedded, Given
    from tests.fixtures.databases import MakePool


class Sender:
    """A relay that runs in the background, as one process's."""

    def __init__(self, dsn: str, pool: Pool, kafka: KafkaSettings, **more: Any) -> None:
        self.wake = Wake()
        self.wake.pool = pool
        self.relay = Relay(
            service="intake",
            dsn=dsn,
            pool=lambda: pool,
            kafka=kafka,
            wake=self.wake,
            metrics=DeliveryMetrics(CollectorRegistry(), service="intake"),
            stages=StageMetrics(CollectorRegistry()),
            **more,
        )
        self._task = asyncio.create_task(self.relay.run())

    @property
    def lanes(self) -> set[int]:
        return set(self.relay._owned)

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@pytest_asyncio.fixture
async def start(make_pool: MakePool, kafka: KafkaSettings) -> AsyncIterator[Callable[..., Any]]:
    """`await start()`: a running relay and its pool; with `dsn, pool` a second one beside it."""
    started: list[Sender] = []

    async def begin(dsn: str = "", pool: Pool | None = None, **more: Any) -> tuple[str, Pool, Sender]:
        if pool is None:
            dsn, pool = await make_pool.with_dsn("shared")
        started.append(Sender(dsn, pool, kafka, **more))
        return dsn, pool, started[-1]

    yield begin
    for sender in started:
        await sender.stop()


async def everything_sent(pool: Pool) -> bool:
    return not (await cursors.pending(pool))[0]


async def tell_many(pool: Pool, sender: Sender, dossiers: Sequence[UUID], sequences: Sequence[int]) -> None:
    for sequence in sequences:
        sender.wake(await world.tell(pool, *((dossier_id, sequence) for dossier_id in dossiers)))


async def test_every_event_arrives_in_order_in_the_partition_of_its_dossier(start: Any, kafka: KafkaSettings) -> None:
    _, pool, sender = await start()
    dossiers = [uuid4() for _ in range(30)]
    await tell_many(pool, sender, dossiers, range(1, 6))
    await wait_until(lambda: everything_sent(pool))
    events = await read_topic(kafka)
    assert first_sightings(events) == {dossier_id: [1, 2, 3, 4, 5] for dossier_id in dossiers}
    assert len(events) == 150, "nothing failed, so nothing was sent twice"
    assert all(event.record.partition == lane_of(str(event.dossier_id)) for event in events)
    assert await pool.fetchval("select count(*) from proof.events where sent_at is null") == 0


async def test_the_record_has_the_ids_and_times_of_the_row(start: Any, kafka: KafkaSettings) -> None:
    _, pool, sender = await start()
    await tell_many(pool, sender, [uuid4()], [1])
    await wait_until(lambda: everything_sent(pool))
    (event,) = await read_topic(kafka)
    row = await pool.fetchrow("select * from events")
    assert row is not None
    assert (event.ce_id, event.trace_id, event.recorded_at) == (row["ce_id"], row["trace_id"], row["recorded_at"])
    assert event.fact == told()
    assert dict(event.record.headers)["content-type"] == b"application/json"


async def test_sending_and_refilling_leave_the_events_as_they_were_written(start: Any) -> None:
    _, pool, sender = await start()
    await tell_many(pool, sender, [uuid4() for _ in range(10)], [1, 2])
    written = await pool.fetch("select e.*, xmin from events e order by id")
    await wait_until(lambda: everything_sent(pool))
    await pool.execute("update lanes set sent_to = 0, epoch = epoch + 1")
    await wait_until(lambda: everything_sent(pool))
    assert await pool.fetch("select e.*, xmin from events e order by id") == written


async def test_each_lane_has_one_owner(start: Any) -> None:
    dsn, pool, first = await start()
    await wait_until(lambda: len(first.lanes) == PARTITIONS)
    _, _, second = await start(dsn, pool)
    await wait_until(lambda: second.relay.connected)
    assert second.lanes == set()
    locks = await pool.fetch("select objid from pg_locks where locktype = 'advisory' and classid = 2 and granted")
    assert sorted(row[0] for row in locks) == list(range(PARTITIONS))


async def test_another_takes_the_lanes_over_when_the_owners_connection_ends(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn, pool, first = await start()
    await wait_until(lambda: len(first.lanes) == PARTITIONS)
    dossiers = [uuid4() for _ in range(20)]
    await tell_many(pool, first, dossiers, [1, 2])
    _, _, second = await start(dsn, pool)
    await wait_until(lambda: second.relay.connected)
    take, in_vain = second.relay._take_lanes, 0

    async def looking(owner: Any) -> set[int]:
        nonlocal in_vain
        found: set[int] = await take(owner)
        in_vain += not found
        return found

    monkeypatch.setattr(second.relay, "_take_lanes", looking)
    await wait_until(lambda: in_vain)
    await first.stop()
    await wait_until(lambda: len(second.lanes) == PARTITIONS, 5)
    await tell_many(pool, second, dossiers, [3, 4])
    await wait_until(lambda: everything_sent(pool))
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2, 3, 4] for dossier_id in dossiers}


TERMINATE_OWNER = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = 2 limit 1"


async def test_an_owner_whose_lock_was_lost_stops_sending_and_somebody_goes_on(
    start: Any, kafka: KafkaSettings
) -> None:
    dsn, pool, first = await start()
    _, _, second = await start(dsn, pool)
    await wait_until(lambda: len(first.lanes | second.lanes) == PARTITIONS)
    dossiers = [uuid4() for _ in range(20)]
    for sequence in range(1, 40):
        first.wake(await world.tell(pool, *((dossier_id, sequence) for dossier_id in dossiers)))
        if sequence in (10, 20, 30):
            await wait_until(lambda: pool.fetch(TERMINATE_OWNER))
    await wait_until(lambda: everything_sent(pool))
    assert first_sightings(await read_topic(kafka)) == {dossier_id: list(range(1, 40)) for dossier_id in dossiers}
    assert not first.lanes & second.lanes


async def test_an_owner_that_hangs_loses_its_lanes(start: Any, make_pool: MakePool, kafka: KafkaSettings) -> None:
    """As a frozen process: the kernel answers PostgreSQL's keepalives for it, and nobody asks anything any more."""
    dsn, pool = await make_pool.with_dsn("shared")
    hanging = await open_connection(dsn, name="intake-relay", silence_s=1.0)
    await hanging.fetch("select pg_try_advisory_lock(2, lane) from generate_series(0, 11) as lane")
    _, _, sender = await start(dsn, pool)
    await wait_until(lambda: sender.relay.connected)
    dossier_id = uuid4()
    await tell_many(pool, sender, [dossier_id], [1])
    await wait_until(lambda: everything_sent(pool), 15)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1]}


def test_an_owner_asks_its_connection_far_more_often_than_it_may_be_silent() -> None:
    assert relay.OWNER_SILENCE_S > 3 * relay.WATCH_S


async def sent_row(pool: Pool, dossier_id: UUID, offset: int) -> cursors.Sent:
    """As if the next event of the dossier's lane had been acknowledged at `offset`."""
    lane = lane_of(str(dossier_id))
    epoch = await pool.fetchval("select epoch from lanes where lane = $1", lane)
    row = (await cursors.next_chunks(pool, {lane: epoch}, 1, 10**6))[lane][0]
    return cursors.Sent(lane, epoch, row["id"], row["id"], ((SUBMISSIONS, lane, offset, offset),), (0.0,))


async def test_its_producer_has_ended_before_the_next_owner_may_begin(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it still had under way would land after the next owner's records: an older state after a newer one."""
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    abort, still_locked = relay.abort, []

    async def watched(producer: Any) -> None:
        await abort(producer)
        locks = "select count(*) from pg_locks where locktype = 'advisory' and classid = 2 and granted"
        still_locked.append(await pool.fetchval(locks))

    monkeypatch.setattr(relay, "abort", watched)
    await sender.stop()
    assert still_locked == [PARTITIONS]


async def test_a_former_owner_cannot_move_the_cursor(pool: Pool) -> None:
    dossier_id = uuid4()
    await world.tell(pool, (dossier_id, 1))
    mine = await sent_row(pool, dossier_id, 0)
    await cursors.begin_epoch(pool, [mine.lane])
    with pytest.raises(cursors.NotOurs):
        await cursors.advance(pool, [mine])
    assert await pool.fetchval("select max(sent_to) from lanes") == 0
    assert await pool.fetchval("select count(*) from sent") == 0
    assert await pool.fetchval("select count(*) from broker_marks") == 0


async def test_a_former_owners_late_acknowledgement_does_not_look_like_a_loss(pool: Pool) -> None:
    """Frozen with an acknowledgement under way: its offsets lie below those of whoever went on, and nothing is lost."""
    dossier_id = uuid4()
    await world.tell(pool, (dossier_id, 1))
    late = await sent_row(pool, dossier_id, 5)
    await cursors.begin_epoch(pool, [late.lane])
    assert await cursors.advance(pool, [await sent_row(pool, dossier_id, 6)]) == ""
    with pytest.raises(cursors.NotOurs):
        await cursors.advance(pool, [late])
    assert await pool.fetchval("select sent_to from lanes where lane = $1", late.lane) == late.to_id
    assert await pool.fetchval("select last_offset from broker_marks") == 6


async def test_an_offset_not_above_the_last_one_means_that_the_broker_lost_something(pool: Pool) -> None:
    dossier_id = uuid4()
    await world.tell(pool, (dossier_id, 1), (dossier_id, 2))
    assert await cursors.advance(pool, [await sent_row(pool, dossier_id, 7)]) == ""
    second = await sent_row(pool, dossier_id, 7)
    assert "acknowledged offset 7 after 7" in await cursors.advance(pool, [second])
    assert await pool.fetchval("select max(sent_to) from lanes") == 0, "every lane goes back to its oldest event"
    with pytest.raises(cursors.NotOurs):
        await cursors.advance(pool, [second])


async def test_what_the_broker_lost_is_sent_again_from_the_oldest_event(start: Any, kafka: KafkaSettings) -> None:
    """The same cluster, but its log is shorter than what it had acknowledged."""
    _, pool, sender = await start()
    dossiers = [uuid4() for _ in range(20)]
    await tell_many(pool, sender, dossiers, [1])
    await wait_until(lambda: everything_sent(pool))
    await pool.execute("update broker_marks set last_offset = 1000")
    await tell_many(pool, sender, dossiers[:1], [2])
    await wait_until(lambda: pool.fetchval("select count(*) = 0 from broker_marks where last_offset = 1000"))
    await wait_until(lambda: everything_sent(pool))
    events = await read_topic(kafka)
    times = [sum(event.dossier_id == dossier_id and event.sequence == 1 for event in events) for dossier_id in dossiers]
    assert min(times) == 2, times
    assert first_sightings(events)[dossiers[0]] == [1, 2]


async def knows(pool: Pool, broker: Embedded | Apache | Given) -> bool:
    """Whether the relay has met the cluster that is there now."""
    return await cursors.is_known_cluster(pool, broker.cluster_id)


async def test_a_log_that_is_shorter_than_acknowledged_is_noticed_at_the_next_connect(
    start: Any, kafka: KafkaSettings
) -> None:
    """Nothing is said in that partition any more: no acknowledgement would show the loss. (Apache Kafka only.)"""
    dsn, pool, first = await start()
    await tell_many(pool, first, [uuid4()], [1])
    await wait_until(lambda: everything_sent(pool))
    await first.stop()
    assert await find_shortened(kafka, await cursors.list_marks(pool)) == ""
    await pool.execute("update broker_marks set last_offset = 1000")
    if kafka.flavour == "tansu":
        assert await find_shortened(kafka, await cursors.list_marks(pool)) == ""
        return
    await start(dsn, pool)
    await wait_until(lambda: pool.fetchval("select count(*) = 1 from broker_marks where last_offset = 1"), 20)


async def test_what_is_found_shorter_at_a_connect_is_sent_again_from_the_oldest_event(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows on any broker; that it is found is the test before this one."""
    dsn, pool, first = await start()
    dossier_id = uuid4()
    await tell_many(pool, first, [dossier_id], [1, 2])
    await wait_until(lambda: everything_sent(pool))
    await first.stop()
    found = ["ends before what it had acknowledged"]

    async def find_once(*_: Any) -> str:
        return found.pop() if found else ""

    monkeypatch.setattr(relay, "find_shortened", find_once)
    await start(dsn, pool)
    await wait_until(lambda: has_come(kafka, 4), 20)
    assert [event.sequence for event in await read_topic(kafka)] == [1, 2, 1, 2]


async def has_come(kafka: KafkaSettings, number: int) -> bool:
    return len(await read_topic(kafka)) >= number


async def test_a_new_cluster_gets_everything_in_order(
    start: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings
) -> None:
    _, pool, sender = await start()
    dossiers = [uuid4() for _ in range(20)]
    await tell_many(pool, sender, dossiers, [1, 2])
    await wait_until(lambda: everything_sent(pool))
    losing = asyncio.create_task(broker.lose_everything())
    await tell_many(pool, sender, dossiers, [3, 4])
    await losing
    await tell_many(pool, sender, dossiers, [5])
    await wait_until(lambda: knows(pool, broker), 30)
    await wait_until(lambda: everything_sent(pool), 30)
    await ensure_topics(kafka)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2, 3, 4, 5] for dossier_id in dossiers}


async def test_a_wipe_while_nobody_was_sending_is_noticed_at_the_next_start(
    start: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings
) -> None:
    dsn, pool, first = await start()
    dossier_id = uuid4()
    await tell_many(pool, first, [dossier_id], [1, 2])
    await wait_until(lambda: everything_sent(pool))
    await first.stop()
    await broker.lose_everything()
    _, _, second = await start(dsn, pool)
    await wait_until(lambda: second.relay.connected, 20)
    await wait_until(lambda: everything_sent(pool))
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2]}


async def test_it_connects_when_a_broker_that_was_down_comes(
    start: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings
) -> None:
    await broker.stop()
    _, pool, sender = await start()
    dossier_id = uuid4()
    await tell_many(pool, sender, [dossier_id], [1])
    await wait_until(lambda: not sender.relay.connected)
    await broker.start()
    await wait_until(lambda: everything_sent(pool), 30)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1]}


async def test_a_frozen_broker_costs_time_and_nothing_else(
    start: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "SEND_DEADLINE_S", 0.5)
    _, pool, sender = await start()
    dossiers = [uuid4() for _ in range(20)]
    await tell_many(pool, sender, dossiers, [1])
    await wait_until(lambda: everything_sent(pool))
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        await tell_many(pool, sender, dossiers, [2, 3])
        await wait_until(lambda: not sender.relay.connected, 15)
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    await tell_many(pool, sender, dossiers, [4])
    await wait_until(lambda: everything_sent(pool), 30)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2, 3, 4] for dossier_id in dossiers}


async def test_a_backlog_of_one_lane_does_not_wait_for_the_poll_between_chunks(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "CHUNK", 10)
    monkeypatch.setattr(relay, "POLL_S", 3.0)
    monkeypatch.setattr(relay, "WATCH_S", 3.0)
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    dossier_id = uuid4()
    sender.wake(await world.tell(pool, *((dossier_id, sequence) for sequence in range(1, 201))))
    await wait_until(lambda: everything_sent(pool), 2.5)


async def test_a_commit_of_another_process_is_sent_at_once(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "POLL_S", 5.0)
    monkeypatch.setattr(relay, "WATCH_S", 5.0)
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    elsewhere = Wake()
    elsewhere.pool = pool
    elsewhere(await world.tell(pool, (uuid4(), 1)))
    await wait_until(lambda: everything_sent(pool), 2.0)


async def test_a_running_relay_does_not_answer_a_notify_with_another(start: Any) -> None:
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    heard = 0

    def count(*_: Any) -> None:
        nonlocal heard
        heard += 1

    async with pool.acquire() as listener:
        await listener.add_listener(CHANNEL, count)
        await pool.execute("select pg_notify($1, '')", CHANNEL)
        await wait_until(lambda: heard)
        sender.wake(await world.tell(pool, (uuid4(), 1)))
        await wait_until(lambda: everything_sent(pool))
        await asyncio.wait({asyncio.ensure_future(wait_until(lambda: heard > 1, 0.3))})
        await listener.remove_listener(CHANNEL, count)
    assert heard == 1


async def test_a_commit_nobody_told_of_is_found_by_looking(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "WATCH_S", 30.0)
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    await world.tell(pool, (uuid4(), 1))
    await wait_until(lambda: everything_sent(pool), 5.0)


async def test_the_state_of_a_dossier_is_built_when_sent_and_never_from_history(
    start: Any, kafka: KafkaSettings
) -> None:
    """A re-sent old state would win on a compacted topic."""

    async def state_of(pool: Pool, dossiers: Sequence[UUID]) -> list[StateRecord]:
        now = await pool.fetchval("select count(*) from events")
        return [StateRecord(STATE, str(one), [], b"%d" % now) for one in dossiers]

    dsn, pool, sender = await start(state_of=state_of, state_source=SUBMISSIONS)
    dossier_id = uuid4()
    for sequence in (1, 2, 3):
        await tell_many(pool, sender, [dossier_id], [sequence])
        await wait_until(lambda: everything_sent(pool))
    await sender.stop()
    await pool.execute("update lanes set sent_to = 0, epoch = epoch + 1")
    await start(dsn, pool, state_of=state_of, state_source=SUBMISSIONS)
    await wait_until(lambda: everything_sent(pool))
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.servers, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(STATE, lane_of(str(dossier_id)))])
    values: list[bytes | None] = []
    try:
        await wait_until(lambda: _read_into(values, consumer))
    finally:
        await consumer.stop()
    assert values == [b"1", b"2", b"3", b"3"], "the refill told the state of now, once"


async def test_a_mistake_in_building_states_does_not_stop_the_facts(start: Any, kafka: KafkaSettings) -> None:
    async def state_of(pool: Pool, dossiers: Sequence[UUID]) -> list[StateRecord]:
        raise KeyError("a column that is not there")

    _, pool, sender = await start(state_of=state_of, state_source=SUBMISSIONS)
    dossier_id = uuid4()
    await tell_many(pool, sender, [dossier_id], [1, 2])
    await wait_until(lambda: everything_sent(pool))
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2]}


async def _read_into(values: list[bytes | None], consumer: AIOKafkaConsumer) -> bool:
    for rows in (await consumer.getmany(timeout_ms=50)).values():
        values += [row.value for row in rows]
    return len(values) >= 4


async def test_a_large_backlog_of_mixed_sizes_arrives_whole(start: Any, kafka: KafkaSettings) -> None:
    """Batches are cut by size: nothing may fall between two of them."""
    _, pool, _ = await start()
    dossier_id = uuid4()
    async with pool.acquire() as tx, tx.transaction():
        await stage(tx, [outgoing(dossier_id, n, "x" * (n * 37_000 % 500_000)) for n in range(1, 41)])
    await wait_until(lambda: everything_sent(pool), 20)
    events = await read_topic(kafka)
    assert first_sightings(events) == {dossier_id: list(range(1, 41))}
    assert all(isinstance(event.fact, WithdrawalRequested) for event in events)
