"""Group commit: what shares a transaction, who hears of an error, and what is tried again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from shared.postgres import group_commit
from shared.postgres.group_commit import GroupCommit
from tests.fixtures.waiting import wait_until

TRANSIENT = ConnectionResetError("the server went away")
WRONG = ValueError("the data are wrong")


class Table:
    """Stores items in transactions that a test can stop and let fail. An item is stored as ten times itself."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        """Every group whose transaction began."""
        self.stored: list[int] = []
        self.failures: list[Exception] = []
        """Raised by the next transactions."""
        self.wrong: set[int] = set()
        """A transaction with one of these items fails for its data."""
        self.may_commit = asyncio.Event()
        self.may_commit.set()

    async def commit(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        await self.may_commit.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.wrong & set(items):
            raise WRONG
        self.stored += items
        return [item * 10 for item in items]


@contextlib.asynccontextmanager
async def running(group: GroupCommit[int, int]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(group.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def all_queued(*submitted: asyncio.Task[int]) -> None:
    """Let the tasks run until each waits."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in submitted)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(group_commit, "MAX_PAUSE_S", 0.002)


async def test_items_that_arrive_while_a_transaction_is_under_way_share_the_next_one() -> None:
    table = Table()
    table.may_commit.clear()
    group = GroupCommit(table.commit, max_items=3)
    async with running(group):
        submitted = [asyncio.create_task(group.submit(item)) for item in (1,)]
        await wait_until(lambda: bool(table.groups))
        submitted += [asyncio.create_task(group.submit(item)) for item in (2, 3, 4, 5)]
        await all_queued(*submitted)
        table.may_commit.set()
        assert await asyncio.gather(*submitted) == [10, 20, 30, 40, 50]
    assert table.groups == [[1], [2, 3, 4], [5]]


async def test_an_item_has_its_outcome_only_after_the_commit() -> None:
    table = Table()
    table.may_commit.clear()
    group = GroupCommit(table.commit, max_items=10)
    async with running(group):
        submitted = asyncio.create_task(group.submit(1))
        await wait_until(lambda: bool(table.groups))
        await all_queued(submitted)
        table.may_commit.set()
        assert await submitted == 10


async def test_after_an_error_in_the_data_each_item_is_stored_on_its_own() -> None:
    table = Table()
    table.wrong = {2}
    group = GroupCommit(table.commit, max_items=10)
    submitted = [asyncio.create_task(group.submit(item)) for item in (1, 2, 3)]
    await all_queued(*submitted)
    async with running(group):
        outcomes = await asyncio.gather(*submitted, return_exceptions=True)
    assert outcomes == [10, WRONG, 30]
    assert table.groups == [[1, 2, 3], [1], [2], [3]]


async def test_after_a_transient_error_who_waits_hears_of_it_at_once_and_nothing_of_it_is_stored() -> None:
    table = Table()
    table.failures = [TRANSIENT]
    group = GroupCommit(table.commit, max_items=10)
    submitted = [asyncio.create_task(group.submit(item)) for item in (1, 2)]
    await all_queued(*submitted)
    async with running(group):
        assert await asyncio.gather(*submitted, return_exceptions=True) == [TRANSIENT, TRANSIENT]
        assert await group.submit(3) == 30
    assert (table.groups, table.stored) == ([[1, 2], [3]], [3])


async def test_after_a_transient_error_added_items_are_tried_again_until_they_are_stored() -> None:
    table = Table()
    table.failures = [TRANSIENT, TRANSIENT]
    group = GroupCommit(table.commit, max_items=10)
    group.add(1)
    submitted = asyncio.create_task(group.submit(2))
    await all_queued(submitted)
    group.add(3)
    async with running(group):
        await group.finish(5)
        with pytest.raises(ConnectionResetError):
            await submitted
    assert (table.groups, table.stored) == ([[1, 2, 3], [1, 3], [1, 3]], [1, 3])


async def test_an_added_item_that_can_never_be_stored_is_rejected_and_the_others_are_stored() -> None:
    table, rejected = Table(), []
    table.wrong = {2}
    group = GroupCommit(table.commit, max_items=10, rejected=lambda item, error: rejected.append((item, error)))
    for item in (1, 2, 3):
        group.add(item)
    async with running(group):
        await group.finish(5)
    assert (rejected, table.stored) == ([(2, WRONG)], [1, 3])


async def test_without_a_place_for_rejected_items_the_writer_goes_on() -> None:
    table = Table()
    table.wrong = {1}
    group = GroupCommit(table.commit, max_items=10)
    group.add(1)
    async with running(group):
        assert await group.submit(2) == 20
    assert table.stored == [2]


async def test_submitting_waits_when_too_many_items_wait_already() -> None:
    table = Table()
    group = GroupCommit(table.commit, max_items=10, max_waiting=2)
    submitted = [asyncio.create_task(group.submit(item)) for item in (1, 2, 3)]
    await all_queued(*submitted)
    async with running(group):
        assert await asyncio.gather(*submitted) == [10, 20, 30]
    assert table.groups == [[1, 2], [3]]


async def test_finishing_gives_up_after_its_time() -> None:
    table = Table()
    table.may_commit.clear()
    group = GroupCommit(table.commit, max_items=10)
    group.add(1)
    async with running(group):
        with pytest.raises(TimeoutError):
            await group.finish(0.01)
        table.may_commit.set()
        await group.finish(5)
    assert table.stored == [1]


async def test_who_waits_is_cancelled_with_the_writer() -> None:
    table = Table()
    table.may_commit.clear()
    group = GroupCommit(table.commit, max_items=10)
    async with running(group) as writer:
        submitted = asyncio.create_task(group.submit(1))
        await wait_until(lambda: bool(table.groups))
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitted


async def test_a_caller_that_went_away_does_not_disturb_the_others() -> None:
    for failures in ([], [TRANSIENT]):
        table = Table()
        table.failures = list(failures)
        table.may_commit.clear()
        group = GroupCommit(table.commit, max_items=10)
        async with running(group) as writer:
            submitted = [asyncio.create_task(group.submit(item)) for item in (1, 2)]
            await wait_until(lambda table=table: bool(table.groups))
            submitted[0].cancel()
            table.may_commit.set()
            outcomes = await asyncio.gather(*submitted, return_exceptions=True)
            assert isinstance(outcomes[0], asyncio.CancelledError)
            assert outcomes[1] == (TRANSIENT if failures else 20)
            assert await group.submit(3) == 30
            assert not writer.done()
