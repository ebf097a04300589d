"""After the broker has lost records, or was away, every event is sent again and in order."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from shared.contract.events import PARTITIONS, SUBMISSIONS
from shared.contract.partitions import lane_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import ensure_topics, find_shortened
from shared.outbox import progress, relay
from shared.outbox.batches import Shortened
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.reading import first_sightings, read_topic
from tests.shared.relaying import advance, everything_sent, has_records, is_cluster_saved, publish_many, sent_row

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.brokers import Apache, Embedded, Given


async def test_an_offset_that_is_not_above_the_last_one_means_that_the_broker_lost_records(pool: Pool) -> None:
    dossier_id = uuid4()
    await world.append(pool, (dossier_id, 1), (dossier_id, 2))
    assert await advance(pool, await sent_row(pool, dossier_id, 7)) == ""
    second = await sent_row(pool, dossier_id, 7)
    assert "acknowledged offset 7 after 7" in await advance(pool, second)
    assert await pool.fetchval("select max(sent_to) from lanes") == 0, "every lane goes back to its oldest event"
    with pytest.raises(progress.NotOwner):
        await advance(pool, second)


async def test_a_loss_that_only_the_last_save_of_a_session_shows_is_refilled_and_counted(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "SAVE_S", 3_600.0)
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    dossier_id = uuid4()
    lane = lane_of(str(dossier_id))
    await pool.execute("insert into broker_marks values ($1, $2, 100)", SUBMISSIONS, lane)
    await publish_many(pool, sender, [dossier_id], [1])
    await wait_until(lambda: sender.relay._unsaved)
    monkeypatch.setattr(relay, "SAVE_S", 0.1)
    await pool.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'intake-relay'")
    await wait_until(lambda: sender.refills == 1)
    await wait_until(lambda: everything_sent(pool), 20)


async def test_a_loss_within_one_send_is_refilled_and_counted(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, shortened = relay.send, 1

    async def shortened_once(*arguments: Any) -> Any:
        nonlocal shortened
        acknowledged = await send(*arguments)
        if shortened:
            shortened -= 1
            raise Shortened("an offset given before")
        return acknowledged

    _, pool, sender = await start()
    dossier_id = uuid4()
    await publish_many(pool, sender, [dossier_id], [1])
    await wait_until(lambda: everything_sent(pool))
    monkeypatch.setattr(relay, "send", shortened_once)
    await publish_many(pool, sender, [dossier_id], [2])
    await wait_until(lambda: sender.refills == 1)
    await wait_until(lambda: everything_sent(pool), 20)
    assert [event.sequence for event in await read_topic(kafka)] == [1, 2, 1, 2]


async def test_after_a_loss_everything_is_sent_again_from_the_oldest_event(start: Any, kafka: KafkaSettings) -> None:
    """It is the same cluster, but its log ends before an acknowledged offset."""
    _, pool, sender = await start()
    dossiers = [uuid4() for _ in range(20)]
    await publish_many(pool, sender, dossiers, [1])
    await wait_until(lambda: everything_sent(pool))
    await pool.execute("update broker_marks set last_offset = 1000")
    await publish_many(pool, sender, dossiers[:1], [2])
    await wait_until(lambda: pool.fetchval("select count(*) = 0 from broker_marks where last_offset = 1000"))
    await wait_until(lambda: everything_sent(pool))
    events = await read_topic(kafka)
    times = [sum(event.dossier_id == dossier_id and event.sequence == 1 for event in events) for dossier_id in dossiers]
    assert min(times) == 2, times
    assert first_sightings(events)[dossiers[0]] == [1, 2]


async def test_a_log_that_is_shorter_than_acknowledged_is_noticed_at_the_next_connect(
    start: Any, kafka: KafkaSettings
) -> None:
    """Nothing is sent to that partition later, so no acknowledgement shows the loss. (Apache Kafka only.)"""
    dsn, pool, first = await start()
    await publish_many(pool, first, [uuid4()], [1])
    await wait_until(lambda: everything_sent(pool))
    await first.stop()
    assert await find_shortened(kafka, await progress.list_acknowledged(pool)) == ""
    await pool.execute("update broker_marks set last_offset = 1000")
    if kafka.flavour == "tansu":
        assert await find_shortened(kafka, await progress.list_acknowledged(pool)) == ""
        return
    await start(dsn, pool)
    await wait_until(lambda: pool.fetchval("select count(*) = 1 from broker_marks where last_offset = 1"), 20)


async def sent_two_and_stopped(start: Any) -> tuple[str, Pool, UUID]:
    """A dossier whose first two events a relay has sent; the relay has stopped since."""
    dsn, pool, first = await start()
    dossier_id = uuid4()
    await publish_many(pool, first, [dossier_id], [1, 2])
    await wait_until(lambda: everything_sent(pool))
    await first.stop()
    return dsn, pool, dossier_id


async def test_a_log_found_shorter_at_a_connect_is_refilled_from_the_oldest_event(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows is the same on every broker. The test above shows that a shorter log is found."""
    dsn, pool, _ = await sent_two_and_stopped(start)
    losses = ["ends before what it had acknowledged"]

    async def find_once(*_: Any) -> str:
        return losses.pop() if losses else ""

    monkeypatch.setattr(relay, "find_shortened", find_once)
    await start(dsn, pool)
    await wait_until(lambda: has_records(kafka, 4), 20)
    assert [event.sequence for event in await read_topic(kafka)] == [1, 2, 1, 2]


async def test_a_new_cluster_gets_everything_in_order(
    start: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings
) -> None:
    _, pool, sender = await start()
    dossiers = [uuid4() for _ in range(20)]
    await publish_many(pool, sender, dossiers, [1, 2])
    await wait_until(lambda: everything_sent(pool))
    losing = asyncio.create_task(broker.lose_everything())
    await publish_many(pool, sender, dossiers, [3, 4])
    await losing
    await publish_many(pool, sender, dossiers, [5])
    await wait_until(lambda: is_cluster_saved(pool, broker), 30)
    await wait_until(lambda: everything_sent(pool), 30)
    await ensure_topics(kafka)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2, 3, 4, 5] for dossier_id in dossiers}


async def test_a_wipe_while_nobody_was_sending_is_noticed_at_the_next_start(
    start: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings
) -> None:
    dsn, pool, dossier_id = await sent_two_and_stopped(start)
    await broker.lose_everything()
    _, _, second = await start(dsn, pool)
    await wait_until(lambda: second.relay.connected, 20)
    await wait_until(lambda: everything_sent(pool))
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2]}


async def test_the_relay_connects_when_the_broker_comes_up(
    start: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings
) -> None:
    await broker.stop()
    _, pool, sender = await start()
    dossier_id = uuid4()
    await publish_many(pool, sender, [dossier_id], [1])
    await wait_until(lambda: not sender.relay.connected)
    await broker.start()
    await wait_until(lambda: everything_sent(pool), 30)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1]}


async def test_a_frozen_broker_only_delays_the_events(
    start: Any, broker: Embedded | Apache | Given, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "SEND_DEADLINE_S", 0.5)
    _, pool, sender = await start()
    dossiers = [uuid4() for _ in range(20)]
    await publish_many(pool, sender, dossiers, [1])
    await wait_until(lambda: everything_sent(pool))
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        await publish_many(pool, sender, dossiers, [2, 3])
        await wait_until(lambda: not sender.relay.connected, 15)
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    await publish_many(pool, sender, dossiers, [4])
    await wait_until(lambda: everything_sent(pool), 30)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2, 3, 4] for dossier_id in dossiers}
