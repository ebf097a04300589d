"""Group commit: items that arrive while one transaction is under way share the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from shared.postgres.transient import is_transient

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

log = structlog.get_logger(__name__)

FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 2.0


@dataclass(slots=True)
class _Entry(Generic[Item, Outcome]):
    item: Item
    outcome: asyncio.Future[Outcome] | None


class GroupCommit(Generic[Item, Outcome]):
    """One writer. `commit(items)` is one transaction; it returns one outcome per item, in their order.

    A group whose transaction fails because of its data is committed item by item. After a transient error, items that
    somebody waits for (`submit`) fail with it at once, and nothing of them is stored; the others (`add`) are tried
    again until they are. An added item that can never be stored is given to `rejected`.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]],
        *,
        max_items: int,
        max_waiting: int = 0,
        rejected: Callable[[Item, Exception], None] | None = None,
    ) -> None:
        """`max_items` per transaction; `max_waiting` items before `submit` itself waits (0: no bound)."""
        self._commit, self._max_items, self._rejected = commit, max_items, rejected
        self._queue: asyncio.Queue[_Entry[Item, Outcome]] = asyncio.Queue(maxsize=max_waiting)

    async def submit(self, item: Item) -> Outcome:
        """The item's outcome, once its transaction has committed. Raises what its transaction raised."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        await self._queue.put(_Entry(item, outcome))
        return await outcome

    def add(self, item: Item) -> None:
        """Store the item with one of the next transactions; nobody waits for it."""
        self._queue.put_nowait(_Entry(item, None))

    async def finish(self, within_s: float) -> None:
        """Wait until everything added is stored. Raises TimeoutError after `within_s` seconds."""
        # Not wait_for: in Python 3.11 it can swallow a cancellation that comes with the result.
        async with asyncio.timeout(within_s):
            await self._queue.join()

    async def run(self) -> None:
        """Commit groups until cancelled."""
        while True:
            group = [await self._queue.get()]
            while len(group) < self._max_items and not self._queue.empty():
                group.append(self._queue.get_nowait())
            try:
                await self._store(group)
            except asyncio.CancelledError:
                for entry in group:
                    if entry.outcome is not None:
                        entry.outcome.cancel()
                raise
            for _ in group:
                self._queue.task_done()

    async def _store(self, group: list[_Entry[Item, Outcome]]) -> None:
        pause_s = FIRST_PAUSE_S
        while group:
            try:
                outcomes = await self._commit([entry.item for entry in group])
            except Exception as error:  # noqa: BLE001 - handed to whoever waits, retried, or rejected
                if is_transient(error):
                    group = self._fail_awaited(group, error)
                    if group:
                        log.warning("not stored yet, tried again", items=len(group), error=type(error).__name__)
                        await asyncio.sleep(pause_s)
                        pause_s = min(pause_s * 2, MAX_PAUSE_S)
                    continue
                if len(group) > 1:
                    for entry in group:
                        await self._store([entry])
                else:
                    self._reject(group[0], error)
                return
            for entry, outcome in zip(group, outcomes, strict=True):
                if entry.outcome is not None and not entry.outcome.done():
                    entry.outcome.set_result(outcome)
            return

    def _fail_awaited(self, group: list[_Entry[Item, Outcome]], error: Exception) -> list[_Entry[Item, Outcome]]:
        """Answer those that somebody waits for; returns the others."""
        for entry in group:
            if entry.outcome is not None and not entry.outcome.done():
                entry.outcome.set_exception(error)
        return [entry for entry in group if entry.outcome is None]

    def _reject(self, entry: _Entry[Item, Outcome], error: Exception) -> None:
        if entry.outcome is not None:
            if not entry.outcome.done():
                entry.outcome.set_exception(error)
        elif self._rejected is not None:
            self._rejected(entry.item, error)
