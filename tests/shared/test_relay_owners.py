"""Only the owner of a lane sends it, and a former owner cannot change the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from shared.contract.events import PARTITIONS
from shared.kafka.settings import KafkaSettings
from shared.outbox import progress, relay
from shared.postgres.pool import open_connection
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.reading import first_sightings, read_topic
from tests.shared.relaying import advance, everything_sent, publish_many, sent_row

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import MakePool


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
    await publish_many(pool, first, dossiers, [1, 2])
    _, _, second = await start(dsn, pool)
    await wait_until(lambda: second.relay.connected)
    take, empty = second.relay._take_lanes, 0

    async def counted(owner: Any) -> set[int]:
        nonlocal empty
        taken: set[int] = await take(owner)
        empty += not taken
        return taken

    monkeypatch.setattr(second.relay, "_take_lanes", counted)
    await wait_until(lambda: empty)
    await first.stop()
    await wait_until(lambda: len(second.lanes) == PARTITIONS, 5)
    await publish_many(pool, second, dossiers, [3, 4])
    await wait_until(lambda: everything_sent(pool))
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2, 3, 4] for dossier_id in dossiers}


TERMINATE_OWNER = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = 2 limit 1"


async def test_an_owner_that_lost_its_lock_stops_sending_and_another_owner_continues(
    start: Any, kafka: KafkaSettings
) -> None:
    dsn, pool, first = await start()
    _, _, second = await start(dsn, pool)
    await wait_until(lambda: len(first.lanes | second.lanes) == PARTITIONS)
    dossiers = [uuid4() for _ in range(20)]
    for sequence in range(1, 40):
        first.wake(await world.append(pool, *((dossier_id, sequence) for dossier_id in dossiers)))
        if sequence in (10, 20, 30):
            await wait_until(lambda: pool.fetch(TERMINATE_OWNER))
    await wait_until(lambda: everything_sent(pool))
    assert first_sightings(await read_topic(kafka)) == {dossier_id: list(range(1, 40)) for dossier_id in dossiers}
    assert not first.lanes & second.lanes


async def test_an_owner_that_hangs_loses_its_lanes(start: Any, make_pool: MakePool, kafka: KafkaSettings) -> None:
    """A frozen process sends no statement, although its kernel still answers PostgreSQL's keepalives."""
    dsn, pool = await make_pool.with_dsn("shared")
    hanging = await open_connection(dsn, name="intake-relay", silence_s=1.0)
    await hanging.fetch("select pg_try_advisory_lock(2, lane) from generate_series(0, 11) as lane")
    _, _, sender = await start(dsn, pool)
    await wait_until(lambda: sender.relay.connected)
    dossier_id = uuid4()
    await publish_many(pool, sender, [dossier_id], [1])
    await wait_until(lambda: everything_sent(pool), 15)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1]}


def test_an_owner_asks_its_connection_far_more_often_than_it_may_be_silent() -> None:
    assert relay.OWNER_SILENCE_S > 3 * relay.WATCH_S


async def test_the_producer_has_ended_before_the_next_owner_may_begin(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its records in flight arrive after the next owner's, so that an older state follows a newer one."""
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
    await world.append(pool, (dossier_id, 1))
    mine = await sent_row(pool, dossier_id, 0)
    await progress.begin_epoch(pool, [mine.lane])
    with pytest.raises(progress.NotOwner):
        await advance(pool, mine)
    assert await pool.fetchval("select max(sent_to) from lanes") == 0
    assert await pool.fetchval("select count(*) from sent") == 0
    assert await pool.fetchval("select count(*) from broker_marks") == 0


async def test_a_former_owners_late_acknowledgement_does_not_look_like_a_loss(pool: Pool) -> None:
    """It was frozen when the acknowledgement came. Its offsets are below the next owner's, and nothing is lost."""
    dossier_id = uuid4()
    await world.append(pool, (dossier_id, 1))
    late = await sent_row(pool, dossier_id, 5)
    await progress.begin_epoch(pool, [late.lane])
    assert await advance(pool, await sent_row(pool, dossier_id, 6)) == ""
    with pytest.raises(progress.NotOwner):
        await advance(pool, late)
    assert await pool.fetchval("select sent_to from lanes where lane = $1", late.lane) == late.to_id
    assert await pool.fetchval("select last_offset from broker_marks") == 6
