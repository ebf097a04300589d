"""The relay's cursors, when a process dies between two statements."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from shared.outbox import progress
from tests.shared import world
from tests.shared.relaying import advance, sent_row

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


async def test_a_loss_is_noticed_again_after_the_process_that_noticed_it_has_died(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the cursor and the acknowledged offset were saved first, no later check would show the loss."""
    dossier_id = uuid4()
    await world.append(pool, (dossier_id, 1), (dossier_id, 2))
    first = await sent_row(pool, dossier_id, 7)
    assert await advance(pool, first) == ""
    lower = await sent_row(pool, dossier_id, 3)

    async def die(_: Pool) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as dying:
        dying.setattr(progress, "start_over", die)
        with pytest.raises(ConnectionResetError):
            await advance(pool, lower)
    assert await pool.fetchval("select max(sent_to) from lanes") == first.to_id
    assert await pool.fetchval("select max(last_offset) from broker_marks") == 7
    assert "acknowledged offset 3 after 7" in await advance(pool, await sent_row(pool, dossier_id, 3))
    assert await pool.fetchval("select max(sent_to) from lanes") == 0


async def test_several_chunks_of_a_lane_are_saved_together(pool: Pool) -> None:
    dossier_id = uuid4()
    await world.append(pool, *((dossier_id, sequence) for sequence in (1, 2, 3)))
    first = await sent_row(pool, dossier_id, 7)
    second = await sent_row(pool, dossier_id, 8, after=first)
    assert await advance(pool, first, second) == ""
    assert await pool.fetchval("select max(sent_to) from lanes") == second.to_id
    assert [tuple(row) for row in await pool.fetch("select from_id, to_id from sent order by to_id")] == [
        (first.from_id, first.to_id),
        (second.from_id, second.to_id),
    ]
    assert await pool.fetchval("select last_offset from broker_marks") == 8
    assert "acknowledged offset 8 after 8" in await advance(pool, await sent_row(pool, dossier_id, 8, after=second))


async def test_a_loss_between_two_chunks_that_are_saved_together_is_noticed(pool: Pool) -> None:
    dossier_id = uuid4()
    await world.append(pool, (dossier_id, 1), (dossier_id, 2))
    first = await sent_row(pool, dossier_id, 7)
    second = await sent_row(pool, dossier_id, 0, after=first)
    assert "acknowledged offset 0 after 7" in await advance(pool, first, second)
    assert await pool.fetchval("select max(sent_to) from lanes") == 0


async def test_events_that_must_be_sent_again_count_as_unsent_and_afterwards_as_sent_once(pool: Pool) -> None:
    """Otherwise the proof calls the service quiet too early, and the stage figures count a refill twice."""
    dossier_id = uuid4()
    await world.append(pool, (dossier_id, 1))
    assert await advance(pool, await sent_row(pool, dossier_id, 0)) == ""
    assert await pool.fetchval("select count(*) from proof.events where sent_at is null") == 0
    async with pool.acquire() as tx:
        await progress.start_over(tx)
    assert await pool.fetchval("select count(*) from proof.events where sent_at is null") == 1
    assert await advance(pool, await sent_row(pool, dossier_id, 0)) == ""
    assert await pool.fetchval("select sum(events) from sent") == 1
