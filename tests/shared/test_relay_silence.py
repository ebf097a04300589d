"""A relay whose broker, database or own process falls silent gives up after a bound, and nothing is lost."""

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
from tests.shared.relaying import everything_sent, has_come, tell_many


async def for_ever(*_: Any) -> None:
    await asyncio.Event().wait()


async def test_a_send_that_is_never_acknowledged_is_given_up_and_done_again(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker answers every question, so no check fails; an idempotent producer would wait for ever."""
    monkeypatch.setattr(relay, "SEND_DEADLINE_S", 0.5)
    send, unanswered = relay.send, 1

    async def unanswered_once(*said: Any) -> Any:
        nonlocal unanswered
        if unanswered:
            unanswered -= 1
            await for_ever()
        return await send(*said)

    monkeypatch.setattr(relay, "send", unanswered_once)
    _, pool, sender = await start()
    dossier_id = uuid4()
    await tell_many(pool, sender, [dossier_id], [1, 2])
    await wait_until(lambda: everything_sent(pool), 20)
    assert unanswered == 0
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2]}


async def test_when_one_topic_fails_the_producer_of_the_others_ends_before_anything_is_sent_again(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would go on sending beside the next session, which sends the same events again."""
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
    await tell_many(pool, sender, [dossier_id], [1])
    await wait_until(lambda: everything_sent(pool), 20)
    assert steps == ["sent", "ended", "sent"]
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1]}


async def test_with_a_silent_lock_connection_and_much_to_send_the_session_ends_as_soon_as_at_rest(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL gives the lanes to another process meanwhile; waiting for that connection would take a minute."""
    monkeypatch.setattr(relay, "ANSWER_S", 0.5)
    monkeypatch.setattr(relay, "WATCH_S", 0.2)
    _, pool, sender = await start()
    await wait_until(lambda: len(sender.lanes) == PARTITIONS)
    dossier_id = uuid4()
    silent = await pool.fetchval("select pid from pg_stat_activity where application_name = 'intake-relay'")
    os.kill(silent, signal.SIGSTOP)
    try:
        await tell_many(pool, sender, [dossier_id], [1])
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
    assert await pool.fetchval("select max(epoch) from lanes") == 1, "nobody lost them while at rest"
    _, _, second = await start(dsn, pool)
    await wait_until(lambda: second.relay.connected)
    assert second.lanes == set()
    hanging = True
    await wait_until(lambda: len(second.lanes) == PARTITIONS, 30)
    dossier_id = uuid4()
    await tell_many(pool, second, [dossier_id], [1])
    await wait_until(lambda: everything_sent(pool), 20)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1]}


async def test_a_log_that_becomes_shorter_while_the_relay_is_connected_is_measured_and_refilled(
    start: Any, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client reconnects to a newly elected leader by itself, and tells nobody."""
    monkeypatch.setattr(relay, "MEASURE_S", 0.0)
    monkeypatch.setattr(relay, "WATCH_S", 0.1)
    _, pool, sender = await start()
    dossier_id, found = uuid4(), list[str]()

    async def find_shortened(*_: Any) -> str:
        return found.pop() if found else ""

    monkeypatch.setattr(relay, "find_shortened", find_shortened)
    await tell_many(pool, sender, [dossier_id], [1, 2])
    await wait_until(lambda: everything_sent(pool))
    assert sender.relay.connected
    found.append("ends before what it had acknowledged")
    await wait_until(lambda: has_come(kafka, 4), 20)
    assert [event.sequence for event in await read_topic(kafka)] == [1, 2, 1, 2]
