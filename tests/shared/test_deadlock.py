"""Consumers, officers' commands and replays on the same dossiers at once: no deadlock, and no event is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from shared.contract.envelope import Received, Record, StreamKey, parse
from shared.contract.events import LIFECYCLE, SUBMISSIONS, DossierWithdrawn, Fact, WithdrawalRequested
from shared.http.problems import Problem
from shared.inbox import parked, positions, store
from shared.inbox.consumer import Consumer, Handler, Unappliable
from shared.outbox.publish import Outbox
from tests.fixtures.publishing import publish
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.records import record

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import MakePool


async def command(pool: Pool, dossiers: Sequence[UUID]) -> None:
    """An officer's command on some dossiers: locks the dossiers by id in one statement, and the lanes last."""
    async with pool.acquire() as tx, tx.transaction():
        await tx.fetch(
            "select 1 from dossiers where dossier_id = any($1::uuid[]) order by dossier_id for update", dossiers
        )
        await publish(tx, [await world.answer(tx, dossier_id) for dossier_id in dossiers])


@pytest_asyncio.fixture
async def pool(make_pool: MakePool) -> Pool:
    pool = await make_pool("shared", size=20)
    await pool.execute(world.TABLE)
    return pool


async def deadlocks(pool: Pool) -> int:
    """How many deadlocks there were. An idle backend reports its own later, so each is made to report now."""
    connections = [await pool.acquire() for _ in range(pool.get_size())]
    for connection in connections:
        await connection.execute("select pg_stat_force_next_flush()")
        await pool.release(connection)
    return int(await pool.fetchval("select deadlocks from pg_stat_database where datname = current_database()"))


async def test_consumers_commands_and_replays_on_the_same_dossiers_do_not_deadlock(pool: Pool) -> None:
    dossiers = [uuid4() for _ in range(30)]
    await pool.execute("insert into dossiers select unnest($1::uuid[])", dossiers)
    refused = {(dossier_id, 5) for dossier_id in dossiers[:5]}

    def handler(unit: world.Effects, event: Received) -> None:
        if (event.dossier_id, event.sequence) in refused:
            raise Unappliable("no-such-thing")
        world.on_withdrawal_requested(unit, event)

    handlers: dict[type[Fact], Handler] = {WithdrawalRequested: handler, DossierWithdrawn: handler_of_nothing}
    consumers = [world.consumer(pool, handlers=handlers, open_unit=world.open_answering) for _ in range(3)]
    log = [record(dossier_id, n) for n in range(1, 11) for dossier_id in dossiers]
    other = [
        record(dossier_id, n, fact=world.WITHDRAWN, topic=LIFECYCLE) for n in range(1, 11) for dossier_id in dossiers
    ]

    async def consume(consumer: Consumer, records: Sequence[Record], seed: int) -> None:
        shuffled = list(records)
        random.Random(seed).shuffle(shuffled)
        for at in range(0, len(shuffled), 25):
            await consumer.apply(shuffled[at : at + 25])

    async def command_at_random(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            await command(pool, chance.sample(dossiers, 6))

    async def replay_what_is_parked(consumer: Consumer) -> None:
        for _ in range(30):
            refused.clear()
            for row in await pool.fetch("select id, dossier_id from parked where state = 'parked'"):
                await replay(pool, consumer, row["id"])
            await asyncio.sleep(0)

    work = [consume(consumer, log + other, number) for number, consumer in enumerate(consumers)]
    work += [command_at_random(number) for number in range(3)]
    work += [replay_what_is_parked(consumers[0])]
    await asyncio.wait_for(asyncio.gather(*work), 60)
    for row in await pool.fetch("select id from parked where state = 'parked'"):
        await replay(pool, consumers[0], row["id"])
    assert await deadlocks(pool) == 0
    assert await world.held(pool) == {}
    assert await world.doubles(pool) == 0
    effects = await world.effects(pool)
    assert sorted(effects) == sorted((d, n) for n in range(1, 11) for d in dossiers)
    for dossier_id in dossiers:
        assert [n for d, n in effects if d == dossier_id] == list(range(1, 11))
        rows = await pool.fetch("select sequence from events where dossier_id = $1 order by id", dossier_id)
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))


def handler_of_nothing(unit: world.Effects, event: Received) -> None:
    """The event's dossier is locked, and nothing else happens."""


async def replay(pool: Pool, consumer: Consumer, number: int) -> None:
    """Replay a parked record as `POST /v1/parked/{id}/replay` does."""
    try:
        async with Outbox(lambda: pool).transaction() as transaction:
            row = await parked._close(transaction.tx, number, "replayed", "ops")
            await consumer.resume(transaction, parse(store.record_from(row)))
    except (Problem, Unappliable):
        return
    await consumer.drain(StreamKey(SUBMISSIONS, row["dossier_id"]))


@pytest.mark.parametrize("sequence", [1, 2], ids=["applied", "held"])
async def test_consumers_that_meet_the_same_new_dossiers_in_any_order_do_not_deadlock(
    pool: Pool, sequence: int
) -> None:
    """The test locks one dossier until all consumers have begun. In different orders they would wait for each other."""
    dossiers = sorted(uuid4() for _ in range(60))
    batch = [record(dossier_id, sequence) for dossier_id in dossiers]
    consumers = [world.consumer(pool, handlers={}) for _ in range(6)]
    async with pool.acquire() as tx, tx.transaction():
        await positions.lock(tx, [StreamKey(SUBMISSIONS, dossiers[30])])
        applying = asyncio.gather(*(consumer.apply(batch) for consumer in consumers))
        await wait_until(lambda: pool.fetchval("select count(*) >= 6 from pg_locks where not granted"))
    await asyncio.wait_for(applying, 20)
    assert await deadlocks(pool) == 0
    assert await pool.fetchval("select count(*) from heads") == 60


async def test_a_replay_locks_the_stream_position_before_the_parked_record(pool: Pool) -> None:
    """The consumer holds the stream position and parks the same record again.

    A replay that locked the record first would then wait for the position: a deadlock.
    """
    dossier_id = uuid4()
    consumer = world.consumer(pool)
    impostor = record(dossier_id, 1)
    await consumer.apply([record(dossier_id, 1), impostor])
    number = await pool.fetchval("select id from parked")
    async with pool.acquire() as tx, tx.transaction():
        await positions.lock(tx, [StreamKey(SUBMISSIONS, dossier_id)])
        replaying = asyncio.create_task(replay(pool, consumer, number))
        await wait_until(lambda: pool.fetchval("select count(*) > 0 from pg_locks where not granted"))
        await store.park(tx, impostor, parse(impostor), "identity-conflict", "", blocks=False)
    await replaying
    assert await deadlocks(pool) == 0
