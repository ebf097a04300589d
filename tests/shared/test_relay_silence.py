"""A relay stops waiting for a silent broker or database after a bound, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.errors import KafkaError

from shared.contract.events import PARTITIONS
from shared.kafka.settings import KafkaSettings
from shared.outbox import relay
from tests.fixtures.waiting import wait_until
from tests.shared.reading import first_sightings, read_topic
from tests.shared.relaying import everything_sent, has_records, publish_many


async def for_ever(*_: Any) -> None:
    await asyncio.Event().wait()


async def test_a_send_that_is_never_acknowledged_is_abandoned_and_repeated(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker answers every other request, so no check fails. An idempotent producer waits for ever."""
    monkeypatch.setattr(relay, "SEND_DEADLINE_S", 0.5)
    send, unanswered = relay.send, 1

    async def unanswered_once(*arguments: Any) -> Any:
        nonlocal unanswered
        if unanswered:
            unanswered -= 1
            await for_ever()
        return await send(*arguments)

    monkeypatch.setattr(relay, "send", unanswered_once)
    _, pool, sender = await start()
    dossier_id = uuid4()
    await publish_many(pool, sender, [dossier_id], [1, 2])
    await wait_until(lambda: everything_sent(pool), 20)
    assert unanswered == 0
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2]}


async def test_when_one_topic_fails_the_producer_of_the_others_ends_before_anything_is_sent_again(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it goes on sending beside the next session, which sends the same events again."""
    send, abort, steps = relay.send, relay.abort, list[str]()

    async def torn_once(producer: Any, lane: int, rows: Any) -> Any:
        steps.append("sent")
        if len(steps) == 1:
            raise KafkaError("the leader of one of them is gone")
        return await send(producer, lane, rows)

    async def watched(producer: Any) -> None:
        await abort(producer)
        steps.append("ended")

    monkeypatch.setattr(relay, "send", torn_once)
    monkeypatch.setattr(relay, "abort", watched)
    _, pool, sender = await start()
    dossier_id = uuid4()
    await publish_many(pool, sender, [dossier_id], [1])
    await wait_until(lambda: everything_sent(pool), 20)
    assert steps == ["sent", "ended", "sent"]
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1]}


async def test_a_silent_lock_connection_ends_a_busy_session_as_soon_as_an_idle_one(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL may give the lanes to another process meanwhile, and waiting for that connection takes a minute."""
    monkeypatch.setattr(relay, "ANSWER_S", 0.5)
    monkeypatch.setattr(relay, "WATCH_S", 0.2)
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    dossier_id = uuid4()
    silent = await pool.fetchval("select pid from pg_stat_activity where application_name = 'intake-relay'")
    os.kill(silent, signal.SIGSTOP)
    try:
        await publish_many(pool, sender, [dossier_id], [1])
        await wait_until(lambda: not sender.relay.connected, 10)
    finally:
        os.kill(silent, signal.SIGCONT)
    await wait_until(lambda: everything_sent(pool), 20)
    assert set(first_sightings(await read_topic(kafka))) == {dossier_id}


async def test_a_relay_that_hangs_loses_its_lanes_and_one_that_only_rests_keeps_them(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay at rest uses its connection every `WATCH_S`; a process that hangs does not."""
    monkeypatch.setattr(relay, "OWNER_SILENCE_S", 2.0)
    monkeypatch.setattr(relay, "WATCH_S", 0.2)
    monkeypatch.setattr(relay, "POLL_S", 0.1)
    dsn, pool, first = await start()
    await wait_until(lambda: len(first.lanes) == PARTITIONS)
    watch, looks, hanging = first.relay._watch, 0, False

    async def hang_later(owner: Any, producer: Any) -> None:
        nonlocal looks
        looks += 1
        await (for_ever() if hanging else watch(owner, producer))

    monkeypatch.setattr(first.relay, "_watch", hang_later)
    rested = 2 * relay.OWNER_SILENCE_S / relay.WATCH_S
    await wait_until(lambda: looks > rested, 30)
    assert await pool.fetchval("select max(epoch) from lanes") == 1, (
        "no lane changed its owner while the relay was at rest"
    )
    _, _, second = await start(dsn, pool)
    await wait_until(lambda: second.relay.connected)
    assert second.lanes == set()
    hanging = True
    await wait_until(lambda: len(second.lanes) == PARTITIONS, 30)
    dossier_id = uuid4()
    await publish_many(pool, second, [dossier_id], [1])
    await wait_until(lambda: everything_sent(pool), 20)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1]}


async def test_a_log_that_becomes_shorter_while_the_relay_is_connected_is_noticed_and_refilled(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client reconnects to a newly elected leader by itself and reports nothing."""
    monkeypatch.setattr(relay, "MEASURE_S", 0.0)
    monkeypatch.setattr(relay, "WATCH_S", 0.1)
    _, pool, sender = await start()
    dossier_id, losses = uuid4(), list[str]()

    async def find_shortened(*_: Any) -> str:
        return losses.pop() if losses else ""

    monkeypatch.setattr(relay, "find_shortened", find_shortened)
    await publish_many(pool, sender, [dossier_id], [1, 2])
    await wait_until(lambda: everything_sent(pool))
    assert sender.relay.connected
    losses.append("ends before what it had acknowledged")
    await wait_until(lambda: has_records(kafka, 4), 20)
    assert [event.sequence for event in await read_topic(kafka)] == [1, 2, 1, 2]
