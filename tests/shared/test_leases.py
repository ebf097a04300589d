"""Leases: which rows are taken, by whom, for how long, and how a late worker notices that the row is not its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from shared.postgres.leases import LeasedTable, wait_for

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import MakePool

JOBS = LeasedTable(
    table="jobs",
    key=("id", "kind"),
    due_at="due_at",
    open_rows="state = any($3::text[])",
    assignments="state = 'running'",
    returning=("id", "tries", "state", "due_at", "asked_at"),
    before=("asked_at",),
)
OPEN = ["open", "running"]
HOUR = 3600


@pytest_asyncio.fixture
async def jobs(make_pool: MakePool) -> Pool:
    """Jobs 1 to 5: 3 is due longest, then 1 and 2; 4 is due in a minute, 5 is done."""
    pool = await make_pool("shared")
    await pool.execute(
        """
        create table jobs (id int, kind text default 'call', state text default 'open', tries int not null default 0,
                           due_at timestamptz not null, asked_at timestamptz, primary key (id, kind));
        insert into jobs (id, due_at, asked_at, state)
        select id, clock_timestamp() - s * interval '1 second', '2025-08-25 09:00+07', state
          from (values (1, 20, 'open'), (2, 10, 'open'), (3, 30, 'open'), (4, -60, 'open'), (5, 40, 'done'))
            as v (id, s, state)
        """
    )
    return pool


async def taken(pool: Pool, limit: int = 10, lease_s: float = HOUR) -> list[int]:
    return [row["id"] for row in await JOBS.take_due(pool, limit, lease_s, OPEN)]


async def test_only_open_rows_that_are_due_are_taken_and_no_more_than_asked_for(jobs: Pool) -> None:
    assert sorted(await taken(jobs, limit=2)) == [1, 3]
    assert await taken(jobs) == [2]
    assert await taken(jobs) == []


async def test_a_leased_row_is_not_due_until_its_lease_ends(jobs: Pool) -> None:
    assert sorted(await taken(jobs, lease_s=HOUR)) == [1, 2, 3]
    left = await jobs.fetchval(
        "select extract(epoch from min(due_at) - clock_timestamp())::float from jobs where state = 'running'"
    )
    assert HOUR - 60 < left <= HOUR
    assert await taken(jobs) == []
    await jobs.execute("update jobs set due_at = due_at - $1 * interval '1 second'", float(HOUR))
    assert {1, 2, 3} <= set(await taken(jobs))


async def test_the_row_of_a_worker_that_died_is_taken_by_the_next_and_its_late_outcome_is_not_written(
    jobs: Pool,
) -> None:
    (first,) = await JOBS.take_due(jobs, 1, 0, OPEN)
    (second,) = [row for row in await JOBS.take_due(jobs, 10, HOUR, OPEN) if row["id"] == first["id"]]
    assert (first["tries"], second["tries"]) == (1, 2)
    outcome = "update jobs set state = $3 where id = $1 and tries = $2 returning 1"
    assert await jobs.fetchval(outcome, first["id"], first["tries"], "late") is None
    assert await jobs.fetchval(outcome, second["id"], second["tries"], "done") == 1


async def test_taking_is_committed_before_any_work_is_done(jobs: Pool) -> None:
    await taken(jobs)
    async with jobs.acquire() as other:
        rows = await other.fetch("select tries, state from jobs where id <= 3")
    assert {tuple(row) for row in rows} == {(1, "running")}


async def test_many_workers_at_once_take_each_row_once(jobs: Pool) -> None:
    await jobs.execute("insert into jobs (id, due_at) select n, clock_timestamp() from generate_series(100, 299) as n")
    ids = [id for ids in await asyncio.gather(*(taken(jobs, limit=40) for _ in range(8))) for id in ids]
    assert sorted(ids) == [1, 2, 3, *range(100, 300)]


async def test_a_row_that_somebody_has_locked_is_passed_over_and_not_waited_for(jobs: Pool) -> None:
    async with jobs.acquire() as other, other.transaction():
        await other.execute("select 1 from jobs where id = 3 for update")
        async with asyncio.timeout(10):
            assert sorted(await taken(jobs)) == [1, 2]
    assert await taken(jobs) == [3]


async def test_columns_come_back_as_they_are_afterwards_or_as_they_were_before(jobs: Pool) -> None:
    table = LeasedTable(
        table="jobs",
        key=("id",),
        due_at="due_at",
        open_rows="state = 'open'",
        assignments="asked_at = clock_timestamp(), state = 'running'",
        returning=("id", "state", "asked_at"),
        before=("asked_at",),
    )
    (row,) = await table.take_due(jobs, 1, HOUR)
    assert (row["id"], row["state"]) == (3, "running")
    assert row["asked_at"].isoformat() == "2025-08-25T02:00:00+00:00"
    assert await jobs.fetchval("select asked_at > clock_timestamp() - interval '1 minute' from jobs where id = 3")


async def test_waiting_ends_with_the_event_or_with_the_time() -> None:
    event = asyncio.Event()
    assert await wait_for(event, 0.001) is False
    waiting = asyncio.create_task(wait_for(event, 60))
    await asyncio.sleep(0)
    event.set()
    assert await waiting is True


async def test_waiting_is_cancelled_even_when_the_event_comes_at_the_same_time() -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(wait_for(event, 60))
    await asyncio.sleep(0)
    event.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
