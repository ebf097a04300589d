"""Members of a group on a real broker: how they share partitions, who takes over, and a new cluster at the address."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, NodeNotReadyError

from deploy.local.ports import free_port
from shared.contract.envelope import Record
from shared.contract.events import PARTITIONS, SUBMISSIONS
from shared.contract.partitions import lane_of
from shared.kafka import batch_reader, subscription
from shared.kafka.settings import KafkaSettings
from shared.kafka.subscription import Subscription
from shared.kafka.topics import cluster_id, ensure_topics, find_shortened, pin_to_present
from shared.postgres.transient import NotReady
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.listening import Listener, all_heard, send
from tests.shared.telling import record
from tests.shared.world import doubles, parked

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.brokers import Apache, Embedded, Given


async def test_a_new_cluster_is_read_from_its_start(
    listen: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings, pool: Pool
) -> None:
    listener = listen()
    dossiers = [uuid4() for _ in range(20)]

    ids: dict[tuple[UUID, int], UUID] = {}

    def same_record(dossier_id: UUID, sequence: int) -> Record:
        ids.setdefault((dossier_id, sequence), uuid4())
        return record(dossier_id, sequence, ce_id=ids[dossier_id, sequence])

    async def tell(sequences: Sequence[int]) -> None:
        await ensure_topics(kafka)
        producer = kafka.producer("test")
        await producer.start()
        await send(producer, [same_record(d, n) for n in sequences for d in dossiers])
        await producer.stop()

    await tell([1, 2, 3])
    await all_heard(pool, [(d, n) for n in (1, 2, 3) for d in dossiers])
    await broker.lose_everything()
    await tell([1, 2, 3, 4])
    await all_heard(pool, [(d, n) for n in (1, 2, 3, 4) for d in dossiers], 40)
    assert await parked(pool) == []
    assert await doubles(pool) == 0
    assert listener.subscription.connected


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_service_that_was_down_while_the_cluster_changed_reads_from_the_start(
    failures: int, listen: Any, producer: AIOKafkaProducer, kafka: KafkaSettings, pool: Pool, monkeypatch: Any
) -> None:
    """Offsets committed to another cluster mean nothing here, even where this one has them.

    Also when the database does not answer during the assignment, where aiokafka swallows the error.
    """
    dossier_id = uuid4()
    await send(producer, [record(dossier_id, 1), record(dossier_id, 2)])
    before = Listener(pool, kafka)
    await all_heard(pool, [(dossier_id, 1), (dossier_id, 2)])
    await before.stop()
    await pool.execute("update broker_cluster set cluster_id = 'a former one' where side = 'consumer'")
    apply, came = world.consumer(pool).apply, 0

    async def counting(records: Sequence[Record]) -> None:
        nonlocal came
        came += len(records)
        await apply(records)

    rewind = Subscription.rewind_if_new

    async def fail_first(self: Subscription, assigned: set[TopicPartition]) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError("the database is away")
        await rewind(self, assigned)

    monkeypatch.setattr(Subscription, "rewind_if_new", fail_first)
    listen(counting)
    await wait_until(lambda: came >= 2, 20)
    await all_heard(pool, [(dossier_id, 1), (dossier_id, 2)])
    assert await pool.fetchval("select cluster_id from broker_cluster where side = 'consumer'") != "a former one"


async def test_a_member_of_a_group_joins_no_group_of_another_cluster(
    listen: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would leave at once to start again, and the embedded broker would wait for it before anybody may read."""
    clusters: dict[Any, set[str]] = defaultdict(set)
    rewind = Subscription.rewind_if_new

    async def watched(self: Subscription, assigned: set[TopicPartition]) -> None:
        consumer = self._subscriber.consumer
        clusters[consumer].add(await cluster_id(consumer._client))
        await rewind(self, assigned)

    monkeypatch.setattr(Subscription, "rewind_if_new", watched)
    monkeypatch.setattr(subscription, "SILENCE_S", 3_600.0)  # so that only the other cluster makes it start again
    listener = listen()
    await wait_until(lambda: len(listener.partitions) == PARTITIONS, 20)
    await broker.lose_everything()
    await ensure_topics(kafka)
    await wait_until(lambda: broker.cluster_id in set().union(*clusters.values()), 40)
    assert all(len(heard) == 1 for heard in clusters.values()), list(clusters.values())


async def test_an_offset_in_a_lost_cluster_is_not_committed_to_the_next_one(
    listen: Any,
    producer: AIOKafkaProducer,
    broker: Embedded | Apache | Given,
    kafka: KafkaSettings,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The group would skip as many records of the new log as were applied of the old one."""
    commits: list[dict[TopicPartition, int]] = []
    commit = AIOKafkaConsumer.commit

    async def watched(self: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        await commit(self, offsets)
        commits.append(offsets)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", watched)
    monkeypatch.setattr(batch_reader, "COMMIT_EVERY_S", 1e9)
    listener, former, dossier_id = listen(), [uuid4() for _ in range(20)], uuid4()
    await send(producer, [record(one, 1) for one in former])
    await all_heard(pool, [(one, 1) for one in former])
    assert not commits
    await broker.lose_everything()
    monkeypatch.setattr(batch_reader, "COMMIT_EVERY_S", 0.0)
    await wait_until(lambda: listener.subscription._cluster == broker.cluster_id, 40, what="the new one is read")
    again = kafka.producer("test")
    await again.start()
    try:
        await send(again, [record(dossier_id, 1)])
        await all_heard(pool, [*((one, 1) for one in former), (dossier_id, 1)])
        await wait_until(lambda: commits, 20)
    finally:
        await again.stop()
    assert commits == [{TopicPartition(SUBMISSIONS, lane_of(str(dossier_id))): 1}]


async def test_one_of_several_addresses_is_enough(kafka: KafkaSettings, pool: Pool) -> None:
    """A cluster is given as HOST:PORT,HOST:PORT, and any of the servers may be down when a service starts."""
    several = KafkaSettings(f"127.0.0.1:{free_port()}, {kafka.servers}", kafka.flavour)
    await ensure_topics(several)
    producer, listener, dossier_id = several.producer("test"), Listener(pool, several), uuid4()
    await producer.start()
    try:
        await send(producer, [record(dossier_id, 1)])
        await all_heard(pool, [(dossier_id, 1)])
        assert await find_shortened(several, {(SUBMISSIONS, lane_of(str(dossier_id))): 0}) == ""
    finally:
        await producer.stop()
        await listener.stop()


async def test_two_members_share_the_partitions_and_one_goes_on_alone(
    listen: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    first, second = listen(), listen()
    dossiers = [uuid4() for _ in range(40)]

    def shared() -> bool:
        return len(first.partitions | second.partitions) == PARTITIONS and bool(first.partitions and second.partitions)

    await wait_until(shared, 30)
    await send(producer, [record(d, 1) for d in dossiers])
    await all_heard(pool, [(d, 1) for d in dossiers])
    assert not first.partitions & second.partitions
    await first.stop()
    await send(producer, [record(d, 2) for d in dossiers])
    await all_heard(pool, [(d, n) for n in (1, 2) for d in dossiers], 30)
    assert await doubles(pool) == 0


async def test_a_membership_that_has_died_inside_the_client_is_replaced(
    listen: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker answers, the partitions look assigned, and no record would ever come."""
    monkeypatch.setattr(subscription, "WATCH_S", 0.1)
    monkeypatch.setattr(subscription, "SILENCE_S", 0.5)
    listener, dossier_id = listen(), uuid4()
    await send(producer, [record(dossier_id, 1)])
    await all_heard(pool, [(dossier_id, 1)])
    coordinator = listener.subscription._subscriber.consumer._coordinator
    coordinator._coordination_task.cancel()
    coordinator._coordination_task = asyncio.ensure_future(_die())
    await send(producer, [record(dossier_id, 2)])
    await all_heard(pool, [(dossier_id, 1), (dossier_id, 2)], 30)
    await wait_until(lambda: is_another(listener, coordinator), 20)


async def _die() -> None:
    raise KafkaError("Unexpected error during coordination")


def is_another(listener: Listener, coordinator: Any) -> bool:
    consumer = listener.subscription._subscriber.consumer
    return consumer is not None and consumer._coordinator is not coordinator and listener.subscription.connected


async def test_a_fetcher_that_has_died_inside_the_client_is_replaced(
    listen: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    """The member goes on with its heartbeats, and no record would ever come."""
    listener, dossier_id = listen(), uuid4()
    await send(producer, [record(dossier_id, 1)])
    await all_heard(pool, [(dossier_id, 1)])
    fetcher = listener.subscription._subscriber.consumer._fetcher
    fetcher._fetch_task.cancel()
    fetcher._fetch_task = asyncio.ensure_future(_die())
    await asyncio.wait({fetcher._fetch_task})
    await send(producer, [record(dossier_id, 2)])
    await all_heard(pool, [(dossier_id, 1), (dossier_id, 2)], 30)
    await wait_until(lambda: listener.subscription._subscriber.consumer._fetcher is not fetcher, 20)


async def test_a_database_that_is_away_during_the_check_for_gaps_is_no_reason_to_leave_the_group() -> None:
    def away() -> Any:
        raise NotReady("workflow")

    member = Subscription(
        service="workflow",
        topics=[SUBMISSIONS],
        kafka=KafkaSettings("127.0.0.1:1", "tansu"),
        pool=away,
        apply=None,  # type: ignore[arg-type] # not called
        metrics=world.metrics(),
    )
    assert await member._check_gaps(set(), 60.0) == 60.0


async def test_one_broker_of_several_may_be_silent_when_the_cluster_is_asked_for(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks a broker at random: another one answers the next time."""
    asked, ask = 0, cluster_id

    async def sometimes(client: Any) -> str:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise NodeNotReadyError
        return await ask(client)

    monkeypatch.setattr("shared.kafka.topics.cluster_id", sometimes)
    producer = kafka.producer("test")
    await producer.start()
    try:
        assert not (await pin_to_present(producer.client)).done()
    finally:
        await producer.stop()
    assert asked == 3


async def test_a_leader_that_stops_behind_another_member_leaves_nobody_waiting_for_it(
    listen: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    """The embedded broker waits for ever for a leader that left during a rebalance (docs/brokers.md, 13)."""
    leader = listen()
    await wait_until(lambda: len(leader.partitions) == PARTITIONS, 20)
    other = listen()
    await wait_until(lambda: leader.partitions and other.partitions, 20)
    await other.stop()
    await leader.stop()
    listen()
    dossiers = [uuid4() for _ in range(20)]
    await send(producer, [record(one, 1) for one in dossiers])
    await all_heard(pool, [(one, 1) for one in dossiers], 30)


async def test_http_may_serve_while_the_broker_is_down_and_it_connects_later(
    listen: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings, pool: Pool
) -> None:
    await broker.stop()
    listener = listen()
    await wait_until(lambda: not listener.subscription.connected)
    await broker.start()
    await wait_until(lambda: listener.subscription.connected, 40)
