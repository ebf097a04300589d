"""Accepting submissions in groups: whatever arrived while the last commit was under way shares the next one.

A submission is answered only after its group has committed. A group that fails for a reason that would pass fails for
all its members (503, nothing stored); one that fails for its data is tried one by one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from services.intake import store
from services.intake.store import NewSubmission, StoredSubmission
from shared.contract.envelope import Outgoing, new_id
from shared.fault_points import fault_point
from shared.outbox.publish import stage
from shared.postgres.transient import is_transient
from shared.service import Service

GROUP = 200
"""Submissions in one transaction at most."""


@dataclass(slots=True)
class _Waiting:
    new: NewSubmission
    answer: asyncio.Future[StoredSubmission]


class Acceptance:
    """The one writer of submissions in this process."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(maxsize=2_000)

    async def accept(self, new: NewSubmission) -> StoredSubmission:
        """What is stored under the submission's key once that is committed: this submission, or an earlier one."""
        waiting = _Waiting(new, asyncio.get_running_loop().create_future())
        await self._queue.put(waiting)
        return await waiting.answer

    async def run(self, service: Service) -> None:
        """Commit groups until cancelled."""
        while True:
            group = [await self._queue.get()]
            while len(group) < GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            try:
                await self._commit(service, group)
            except asyncio.CancelledError:
                for waiting in group:
                    waiting.answer.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - handed to whoever waits for the answer
                if is_transient(error) or len(group) == 1:
                    _refuse(group, error)
                else:
                    await self._one_by_one(service, group)

    async def _one_by_one(self, service: Service, group: list[_Waiting]) -> None:
        for waiting in group:
            try:
                await self._commit(service, [waiting])
            except Exception as error:  # noqa: BLE001 - handed to whoever waits for the answer
                _refuse([waiting], error)

    async def _commit(self, service: Service, group: list[_Waiting]) -> None:
        # Two of one key in one group: the first is stored, the second is answered with it.
        first = {(row.new.caller, row.new.idempotency_key): row.new for row in reversed(group)}
        async with service.pool().acquire() as tx:
            async with tx.transaction():
                stored = await store.add_submissions(tx, list(first.values()))
                newcomers = [
                    Outgoing(new.dossier_id, 1, new.fact, new_id(), new.trace_id)
                    for key, new in first.items()
                    if stored[key].dossier_id == new.dossier_id
                ]
                lanes = await stage(tx, newcomers)
                fault_point("intake-before-commit", len(newcomers))
            fault_point("intake-after-commit", len(newcomers))
        service.wake(lanes)
        for waiting in group:
            if not waiting.answer.done():
                waiting.answer.set_result(stored[waiting.new.caller, waiting.new.idempotency_key])


def _refuse(group: list[_Waiting], error: Exception) -> None:
    for waiting in group:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
