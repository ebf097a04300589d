"""The relay with a real database and a real broker: it sends each lane in order, soon, and with its states."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.contract.events import PARTITIONS, STATE, SUBMISSIONS, WithdrawalRequested
from shared.contract.partitions import lane_of
from shared.kafka.settings import KafkaSettings
from shared.outbox import relay
from shared.outbox.publish import CHANNEL, Wake
from shared.outbox.state_records import StateRecord
from tests.fixtures.publishing import publish
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.reading import first_sightings, read_topic
from tests.shared.records import withdrawal
from tests.shared.relaying import everything_sent, has_records, publish_many
from tests.shared.test_outbox import outgoing

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


async def test_every_event_arrives_in_order_in_the_partition_of_its_dossier(start: Any, kafka: KafkaSettings) -> None:
    _, pool, sender = await start()
    dossiers = [uuid4() for _ in range(30)]
    await publish_many(pool, sender, dossiers, range(1, 6))
    await wait_until(lambda: everything_sent(pool))
    events = await read_topic(kafka)
    assert first_sightings(events) == {dossier_id: [1, 2, 3, 4, 5] for dossier_id in dossiers}
    assert len(events) == 150, "nothing failed, so nothing was sent twice"
    assert all(event.record.partition == lane_of(str(event.dossier_id)) for event in events)
    assert await pool.fetchval("select count(*) from proof.events where sent_at is null") == 0


async def test_the_record_has_the_ids_and_times_of_the_row(start: Any, kafka: KafkaSettings) -> None:
    _, pool, sender = await start()
    await publish_many(pool, sender, [uuid4()], [1])
    await wait_until(lambda: everything_sent(pool))
    (event,) = await read_topic(kafka)
    row = await pool.fetchrow("select * from events")
    assert row is not None
    assert (event.ce_id, event.trace_id, event.recorded_at) == (row["ce_id"], row["trace_id"], row["recorded_at"])
    assert event.fact == withdrawal()
    assert dict(event.record.headers)["content-type"] == b"application/json"


async def test_sending_and_refilling_leave_the_events_as_they_were_written(start: Any) -> None:
    _, pool, sender = await start()
    await publish_many(pool, sender, [uuid4() for _ in range(10)], [1, 2])
    written = await pool.fetch("select e.*, xmin from events e order by id")
    await wait_until(lambda: everything_sent(pool))
    await pool.execute("update lanes set sent_to = 0, epoch = epoch + 1")
    await wait_until(lambda: everything_sent(pool))
    assert await pool.fetch("select e.*, xmin from events e order by id") == written


async def test_acknowledged_events_are_not_sent_again_while_the_cursor_is_unsaved_and_a_stop_saves_it(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "SAVE_S", 3_600.0)
    _, pool, sender = await start()
    dossier_id = uuid4()
    for sequence in (1, 2, 3):
        await publish_many(pool, sender, [dossier_id], [sequence])
        await wait_until(lambda: has_records(kafka, sequence))  # noqa: B023 - awaited before it changes
    assert [event.sequence for event in await read_topic(kafka)] == [1, 2, 3]
    assert not await everything_sent(pool)
    await sender.stop()
    assert await everything_sent(pool)


async def test_a_backlog_of_one_lane_does_not_wait_for_the_poll_between_chunks(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "CHUNK", 10)
    monkeypatch.setattr(relay, "POLL_S", 3.0)
    monkeypatch.setattr(relay, "WATCH_S", 3.0)
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    dossier_id = uuid4()
    sender.wake(await world.append(pool, *((dossier_id, sequence) for sequence in range(1, 201))))
    await wait_until(lambda: everything_sent(pool), 2.5)


async def test_a_commit_of_another_process_is_sent_at_once(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "POLL_S", 5.0)
    monkeypatch.setattr(relay, "WATCH_S", 5.0)
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    elsewhere = Wake(lambda: pool)
    elsewhere(await world.append(pool, (uuid4(), 1)))
    await wait_until(lambda: everything_sent(pool), 2.0)


async def test_a_running_relay_does_not_answer_a_notify_with_another(start: Any) -> None:
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    notified = 0

    def count(*_: Any) -> None:
        nonlocal notified
        notified += 1

    async with pool.acquire() as listener:
        await listener.add_listener(CHANNEL, count)
        await pool.execute("select pg_notify($1, '')", CHANNEL)
        await wait_until(lambda: notified)
        sender.wake(await world.append(pool, (uuid4(), 1)))
        await wait_until(lambda: everything_sent(pool))
        await asyncio.wait({asyncio.ensure_future(wait_until(lambda: notified > 1, 0.3))})
        await listener.remove_listener(CHANNEL, count)
    assert notified == 1


async def test_a_commit_that_woke_nobody_is_found_by_polling(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "WATCH_S", 30.0)
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    await world.append(pool, (uuid4(), 1))
    await wait_until(lambda: everything_sent(pool), 5.0)


async def test_the_state_of_a_dossier_is_built_when_sent_and_never_from_history(
    start: Any, kafka: KafkaSettings
) -> None:
    """On a compacted topic an old state that is sent again would replace the current one."""

    async def state_of(pool: Pool, dossiers: Sequence[UUID]) -> list[StateRecord]:
        now = await pool.fetchval("select count(*) from events")
        return [StateRecord(STATE, str(one), [], b"%d" % now) for one in dossiers]

    dsn, pool, sender = await start(state_of=state_of, state_source=SUBMISSIONS)
    dossier_id = uuid4()
    for sequence in (1, 2, 3):
        await publish_many(pool, sender, [dossier_id], [sequence])
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
    assert values == [b"1", b"2", b"3", b"3"], "the refill sends the current state, once"


async def test_a_bug_in_building_states_does_not_stop_the_events(start: Any, kafka: KafkaSettings) -> None:
    async def state_of(pool: Pool, dossiers: Sequence[UUID]) -> list[StateRecord]:
        raise KeyError("a column that is not there")

    _, pool, sender = await start(state_of=state_of, state_source=SUBMISSIONS)
    dossier_id = uuid4()
    await publish_many(pool, sender, [dossier_id], [1, 2])
    await wait_until(lambda: everything_sent(pool))
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2]}


async def _read_into(values: list[bytes | None], consumer: AIOKafkaConsumer) -> bool:
    for rows in (await consumer.getmany(timeout_ms=50)).values():
        values += [row.value for row in rows]
    return len(values) >= 4


async def test_a_large_backlog_of_mixed_sizes_arrives_complete(start: Any, kafka: KafkaSettings) -> None:
    """Batches are cut by size, and no event may be lost between two of them."""
    _, pool, _ = await start()
    dossier_id = uuid4()
    async with pool.acquire() as tx, tx.transaction():
        await publish(tx, [outgoing(dossier_id, n, "x" * (n * 37_000 % 500_000)) for n in range(1, 41)])
    await wait_until(lambda: everything_sent(pool), 20)
    events = await read_topic(kafka)
    assert first_sightings(events) == {dossier_id: list(range(1, 41))}
    assert all(isinstance(event.fact, WithdrawalRequested) for event in events)
