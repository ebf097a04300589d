"""Stores submissions in groups: those that arrive while one transaction is under way share the next one.

A submission is answered only after its group has committed. After a transient error the whole group fails (503, nothing
is stored). After an error in the data each submission is tried on its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.intake import store
from services.intake.store import NewSubmission, StoredSubmission
from shared.contract.envelope import Outgoing, new_id
from shared.fault_points import fault_point
from shared.outbox.publish import Outbox
from shared.postgres.group_commit import GroupCommit

MAX_GROUP, MAX_WAITING = 200, 2_000
"""At most so many submissions are in one transaction, and wait for one."""


class Acceptance:
    """The only writer of submissions in this process."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._group: GroupCommit[NewSubmission, StoredSubmission] = GroupCommit(
            self.commit, max_items=MAX_GROUP, max_waiting=MAX_WAITING
        )

    async def accept(self, new: NewSubmission) -> StoredSubmission:
        """Store a submission. Returns what is stored under its key after the commit: it, or an earlier one."""
        return await self._group.submit(new)

    async def run(self) -> None:
        """Commit groups until cancelled."""
        await self._group.run()

    async def commit(self, group: Sequence[NewSubmission]) -> Sequence[StoredSubmission]:
        """Store a group with its events in one transaction. Returns what is stored under each submission's key."""
        # Of two with the same key in one group the first is stored; the second is answered with it.
        first = {new.key: new for new in reversed(group)}
        async with self._outbox.transaction() as transaction:
            stored = await store.add_submissions(transaction.tx, list(first.values()))
            events = [
                Outgoing(new.dossier_id, 1, new.fact, new_id(), new.trace_id)
                for key, new in first.items()
                if stored[key].dossier_id == new.dossier_id
            ]
            transaction.append(events)
            transaction.on_commit(lambda: fault_point("intake-after-commit", len(events)))
            await transaction.flush()
            fault_point("intake-before-commit", len(events))
        return [stored[new.key] for new in group]
