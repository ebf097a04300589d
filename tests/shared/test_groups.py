"""Members of a group on a real broker: they share partitions, take over from each other, and notice a new cluster."""

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
from tests.shared.group_members import GroupMember, send, wait_until_applied
from tests.shared.records import record
from tests.shared.world import doubles, parked

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.brokers import Apache, Embedded, Given


async def test_a_new_cluster_is_read_from_its_start(
    start_member: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings, pool: Pool
) -> None:
    member = start_member()
    dossiers = [uuid4() for _ in range(20)]

    ids: dict[tuple[UUID, int], UUID] = {}

    def same_record(dossier_id: UUID, sequence: int) -> Record:
        ids.setdefault((dossier_id, sequence), uuid4())
        return record(dossier_id, sequence, ce_id=ids[dossier_id, sequence])

    async def publish(sequences: Sequence[int]) -> None:
        await ensure_topics(kafka)
        producer = kafka.producer("test")
        await producer.start()
        await send(producer, [same_record(d, n) for n in sequences for d in dossiers])
        await producer.stop()

    await publish([1, 2, 3])
    await wait_until_applied(pool, [(d, n) for n in (1, 2, 3) for d in dossiers])
    await broker.lose_everything()
    await publish([1, 2, 3, 4])
    await wait_until_applied(pool, [(d, n) for n in (1, 2, 3, 4) for d in dossiers], 40)
    assert await parked(pool) == []
    assert await doubles(pool) == 0
    assert member.subscription.connected


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_service_that_was_down_while_the_cluster_changed_reads_from_the_start(
    failures: int, start_member: Any, producer: AIOKafkaProducer, kafka: KafkaSettings, pool: Pool, monkeypatch: Any
) -> None:
    """Offsets that were committed to another cluster mean nothing in this one, even if it has these offsets.

    With one failure: the database does not answer during the assignment, and aiokafka swallows the error.
    """
    dossier_id = uuid4()
    await send(producer, [record(dossier_id, 1), record(dossier_id, 2)])
    before = GroupMember(pool, kafka)
    await wait_until_applied(pool, [(dossier_id, 1), (dossier_id, 2)])
    await before.stop()
    await pool.execute("update broker_cluster set cluster_id = 'a former one' where side = 'consumer'")
    apply, received = world.consumer(pool).apply, 0

    async def counting(records: Sequence[Record]) -> None:
        nonlocal received
        received += len(records)
        await apply(records)

    rewind = Subscription.rewind_if_new

    async def fail_first(self: Subscription, assigned: set[TopicPartition]) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError("the database is away")
        await rewind(self, assigned)

    monkeypatch.setattr(Subscription, "rewind_if_new", fail_first)
    start_member(counting)
    await wait_until(lambda: received >= 2, 20)
    await wait_until_applied(pool, [(dossier_id, 1), (dossier_id, 2)])
    assert await pool.fetchval("select cluster_id from broker_cluster where side = 'consumer'") != "a former one"


async def test_a_member_of_a_group_joins_no_group_of_another_cluster(
    start_member: Any,
    broker: Embedded | Apache | Given,
    kafka: KafkaSettings,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would leave that group at once, and the embedded broker would make all members wait for it."""
    clusters: dict[Any, set[str]] = defaultdict(set)
    rewind = Subscription.rewind_if_new

    async def watched(self: Subscription, assigned: set[TopicPartition]) -> None:
        consumer = self._subscriber.consumer
        clusters[consumer].add(await cluster_id(consumer._client))
        await rewind(self, assigned)

    monkeypatch.setattr(Subscription, "rewind_if_new", watched)
    monkeypatch.setattr(subscription, "SILENCE_S", 3_600.0)  # so that only the other cluster makes it start again
    member = start_member()
    await wait_until(lambda: len(member.partitions) == PARTITIONS, 20)
    await broker.lose_everything()
    await ensure_topics(kafka)
    await wait_until(lambda: broker.cluster_id in set().union(*clusters.values()), 40)
    assert all(len(ids) == 1 for ids in clusters.values()), list(clusters.values())


async def test_an_offset_in_a_lost_cluster_is_not_committed_to_the_next_one(
    start_member: Any,
    producer: AIOKafkaProducer,
    broker: Embedded | Apache | Given,
    kafka: KafkaSettings,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the group skips as many records of the new log as it had applied of the old one."""
    commits: list[dict[TopicPartition, int]] = []
    commit = AIOKafkaConsumer.commit

    async def watched(self: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
        await commit(self, offsets)
        commits.append(offsets)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", watched)
    monkeypatch.setattr(batch_reader, "COMMIT_EVERY_S", 1e9)
    member, former, dossier_id = start_member(), [uuid4() for _ in range(20)], uuid4()
    await send(producer, [record(one, 1) for one in former])
    await wait_until_applied(pool, [(one, 1) for one in former])
    assert not commits
    await broker.lose_everything()
    monkeypatch.setattr(batch_reader, "COMMIT_EVERY_S", 0.0)
    await wait_until(lambda: member.subscription._cluster == broker.cluster_id, 40, what="the new cluster is read")
    again = kafka.producer("test")
    await again.start()
    try:
        await send(again, [record(dossier_id, 1)])
        await wait_until_applied(pool, [*((one, 1) for one in former), (dossier_id, 1)])
        await wait_until(lambda: commits, 20)
    finally:
        await again.stop()
    assert commits == [{TopicPartition(SUBMISSIONS, lane_of(str(dossier_id))): 1}]


async def test_one_of_several_addresses_is_enough(kafka: KafkaSettings, pool: Pool) -> None:
    """A cluster is given as HOST:PORT,HOST:PORT. Any of its servers may be down when a service starts."""
    several = KafkaSettings(f"127.0.0.1:{free_port()}, {kafka.servers}", kafka.flavour)
    await ensure_topics(several)
    producer, member, dossier_id = several.producer("test"), GroupMember(pool, several), uuid4()
    await producer.start()
    try:
        await send(producer, [record(dossier_id, 1)])
        await wait_until_applied(pool, [(dossier_id, 1)])
        assert await find_shortened(several, {(SUBMISSIONS, lane_of(str(dossier_id))): 0}) == ""
    finally:
        await producer.stop()
        await member.stop()


async def test_two_members_share_the_partitions_and_one_goes_on_alone(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    first, second = start_member(), start_member()
    dossiers = [uuid4() for _ in range(40)]

    def shared() -> bool:
        return len(first.partitions | second.partitions) == PARTITIONS and bool(first.partitions and second.partitions)

    await wait_until(shared, 30)
    await send(producer, [record(d, 1) for d in dossiers])
    await wait_until_applied(pool, [(d, 1) for d in dossiers])
    assert not first.partitions & second.partitions
    await first.stop()
    await send(producer, [record(d, 2) for d in dossiers])
    await wait_until_applied(pool, [(d, n) for n in (1, 2) for d in dossiers], 30)
    assert await doubles(pool) == 0


async def test_a_membership_that_has_died_inside_the_client_is_replaced(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker answers and the partitions look assigned, but no record ever comes."""
    monkeypatch.setattr(subscription, "WATCH_S", 0.1)
    monkeypatch.setattr(subscription, "SILENCE_S", 0.5)
    member, dossier_id = start_member(), uuid4()
    await send(producer, [record(dossier_id, 1)])
    await wait_until_applied(pool, [(dossier_id, 1)])
    coordinator = member.subscription._subscriber.consumer._coordinator
    coordinator._coordination_task.cancel()
    coordinator._coordination_task = asyncio.ensure_future(_die())
    await send(producer, [record(dossier_id, 2)])
    await wait_until_applied(pool, [(dossier_id, 1), (dossier_id, 2)], 30)
    await wait_until(lambda: is_another(member, coordinator), 20)


async def _die() -> None:
    raise KafkaError("Unexpected error during coordination")


def is_another(member: GroupMember, coordinator: Any) -> bool:
    consumer = member.subscription._subscriber.consumer
    return consumer is not None and consumer._coordinator is not coordinator and member.subscription.connected


async def test_a_fetcher_that_has_died_inside_the_client_is_replaced(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    """The member still sends heartbeats, but no record ever comes."""
    member, dossier_id = start_member(), uuid4()
    await send(producer, [record(dossier_id, 1)])
    await wait_until_applied(pool, [(dossier_id, 1)])
    fetcher = member.subscription._subscriber.consumer._fetcher
    fetcher._fetch_task.cancel()
    fetcher._fetch_task = asyncio.ensure_future(_die())
    await asyncio.wait({fetcher._fetch_task})
    await send(producer, [record(dossier_id, 2)])
    await wait_until_applied(pool, [(dossier_id, 1), (dossier_id, 2)], 30)
    await wait_until(lambda: member.subscription._subscriber.consumer._fetcher is not fetcher, 20)


async def test_a_member_stays_in_the_group_when_the_database_is_away_during_the_check_for_gaps() -> None:
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
    """The client asks a random broker, so another one answers the next time."""
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


async def test_after_a_group_leader_stops_a_new_member_reads_without_waiting_for_it(
    start_member: Any, producer: AIOKafkaProducer, pool: Pool
) -> None:
    """The embedded broker waits for ever for a leader that left during a rebalance (docs/brokers.md, 13)."""
    leader = start_member()
    await wait_until(lambda: len(leader.partitions) == PARTITIONS, 20)
    other = start_member()
    await wait_until(lambda: leader.partitions and other.partitions, 20)
    await other.stop()
    await leader.stop()
    start_member()
    dossiers = [uuid4() for _ in range(20)]
    await send(producer, [record(one, 1) for one in dossiers])
    await wait_until_applied(pool, [(one, 1) for one in dossiers], 30)


async def test_a_member_that_starts_while_the_broker_is_down_connects_later(
    start_member: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings, pool: Pool
) -> None:
    await broker.stop()
    member = start_member()
    await wait_until(lambda: not member.subscription.connected)
    await broker.start()
    await wait_until(lambda: member.subscription.connected, 40)
