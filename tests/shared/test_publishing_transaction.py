"""A publishing transaction: its events are stored with it or not at all, and the relay is woken only after a commit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest

from shared.contract.envelope import Outgoing, new_id
from shared.contract.partitions import lane_of
from shared.outbox.publish import MAX_DATA, Outbox
from shared.postgres.transient import NotReady
from tests.shared.records import withdrawal

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


class StopHere(Exception):
    """What a test raises inside a transaction."""


def outgoing(dossier_id: UUID, sequence: int = 1, note: str = "") -> Outgoing:
    return Outgoing(dossier_id, sequence, withdrawal(note), new_id(), new_id())


def lanes_of(*dossiers: UUID) -> set[int]:
    return {lane_of(str(dossier_id)) for dossier_id in dossiers}


async def stored(pool: Pool) -> list[tuple[UUID, int]]:
    """(dossier, sequence) in the order of ids."""
    return [tuple(row) for row in await pool.fetch("select dossier_id, sequence from events order by id")]


async def test_a_commit_calls_its_actions_and_then_wakes_the_relay(pool: Pool) -> None:
    outbox, dossier_id = Outbox(lambda: pool), uuid4()
    calls: list[tuple[str, bool, set[int]]] = []
    async with outbox.transaction() as transaction:
        for name in ("first", "second"):
            transaction.on_commit(
                lambda name=name: calls.append((name, transaction.tx.is_in_transaction(), outbox.wake.take()))
            )
        transaction.append([outgoing(dossier_id)])
        assert calls == []
    # Neither in the transaction any more, nor with a lane woken yet.
    assert calls == [("first", False, set()), ("second", False, set())]
    assert outbox.wake.take() == lanes_of(dossier_id)
    assert await stored(pool) == [(dossier_id, 1)]


async def test_a_rollback_calls_no_action_wakes_nobody_and_stores_nothing(pool: Pool) -> None:
    outbox, calls = Outbox(lambda: pool), []

    async def stop_after_the_flush() -> None:
        async with outbox.transaction() as transaction:
            transaction.on_commit(lambda: calls.append("called"))
            transaction.append([outgoing(uuid4())])
            await transaction.flush()
            raise StopHere

    with pytest.raises(StopHere):
        await stop_after_the_flush()
    assert (calls, outbox.wake.take(), await stored(pool)) == ([], set(), [])


async def test_a_commit_that_fails_calls_no_action_and_wakes_nobody(pool: Pool) -> None:
    outbox, calls, dossier_id = Outbox(lambda: pool), [], uuid4()

    async def publish_first_event() -> None:
        async with outbox.transaction() as transaction:
            transaction.on_commit(lambda: calls.append("called"))
            transaction.append([outgoing(dossier_id)])

    await publish_first_event()
    assert (calls, outbox.wake.take()) == (["called"], lanes_of(dossier_id))
    with pytest.raises(asyncpg.UniqueViolationError):
        await publish_first_event()
    assert (calls, outbox.wake.take(), await stored(pool)) == (["called"], set(), [(dossier_id, 1)])


async def test_everything_is_written_at_the_flush_in_one_statement(pool: Pool) -> None:
    await pool.execute("create table things (name text)")
    outbox, one, other = Outbox(lambda: pool), uuid4(), uuid4()
    async with outbox.transaction() as transaction:
        transaction.append([outgoing(one, 1), outgoing(other, 1)])
        transaction.writes.add("insert into things values ($1)", "thing")
        transaction.append([outgoing(one, 2)])
        assert await transaction.tx.fetchval("select count(*) from events") == 0
        statements: list[str] = []
        with transaction.tx.query_logger(lambda query: statements.append(query.query)):
            await transaction.flush()
            await asyncio.sleep(0)  # asyncpg calls the logger in the next turn of the loop
        (statement,) = [text for text in statements if "insert" in text]  # it looks types up as well
        assert "insert into events" in statement
        assert "insert into things" in statement
        assert await transaction.tx.fetchval("select count(*) from events") == 3
        assert await transaction.tx.fetchval("select count(*) from things") == 1
    assert await stored(pool) == [(one, 1), (other, 1), (one, 2)]
    assert outbox.wake.take() == lanes_of(one, other)


async def test_what_is_appended_after_a_flush_is_written_when_the_transaction_ends(pool: Pool) -> None:
    outbox, one, other = Outbox(lambda: pool), uuid4(), uuid4()
    async with outbox.transaction() as transaction:
        transaction.append([outgoing(one)])
        await transaction.flush()
        transaction.append([outgoing(other)])
    assert await stored(pool) == [(one, 1), (other, 1)]
    assert outbox.wake.take() == lanes_of(one, other)


async def test_a_transaction_without_events_wakes_nobody(pool: Pool) -> None:
    outbox, calls = Outbox(lambda: pool), []
    async with outbox.transaction() as transaction:
        transaction.on_commit(lambda: calls.append("called"))
    assert (calls, outbox.wake.take()) == (["called"], set())


async def test_an_event_too_large_for_a_broker_is_refused_with_its_transaction(pool: Pool) -> None:
    outbox = Outbox(lambda: pool)
    with pytest.raises(ValueError, match="WithdrawalRequested"):
        async with outbox.transaction() as transaction:
            transaction.append([outgoing(uuid4()), outgoing(uuid4(), note="x" * MAX_DATA)])
    assert (outbox.wake.take(), await stored(pool)) == (set(), [])


async def test_before_the_database_is_there_it_is_not_ready() -> None:
    def no_pool() -> Pool:
        raise NotReady("intake")

    with pytest.raises(NotReady):
        async with Outbox(no_pool).transaction():
            pytest.fail("a transaction was opened")
