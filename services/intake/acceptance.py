"""Accepting submissions in groups: those that arrive while one transaction is under way share the next one.

A submission is answered only after its group has committed. A group that fails for a transient reason fails for all its
members (503, nothing stored); one that fails because of its data is tried one by one.
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
"""Submissions in one transaction, and waiting for one, at most."""


class Acceptance:
    """The one writer of submissions in this process."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._group: GroupCommit[NewSubmission, StoredSubmission] = GroupCommit(
            self.commit, max_items=MAX_GROUP, max_waiting=MAX_WAITING
        )

    async def accept(self, new: NewSubmission) -> StoredSubmission:
        """What is stored under the submission's key once that is committed: this submission, or an earlier one."""
        return await self._group.submit(new)

    async def run(self) -> None:
        """Commit groups until cancelled."""
        await self._group.run()

    async def commit(self, group: Sequence[NewSubmission]) -> Sequence[StoredSubmission]:
        """One transaction: store them with their events. Returns what is stored under each one's key."""
        # Of two with one key in a group the first is stored, and the second is answered with it.
        first = {(new.caller, new.idempotency_key): new for new in reversed(group)}
        async with self._outbox.transaction() as transaction:
            stored = await store.add_submissions(transaction.tx, list(first.values()))
            newcomers = [
                Outgoing(new.dossier_id, 1, new.fact, new_id(), new.trace_id)
                for key, new in first.items()
                if stored[key].dossier_id == new.dossier_id
            ]
            transaction.append(newcomers)
            transaction.on_commit(lambda: fault_point("intake-after-commit", len(newcomers)))
            await transaction.flush()
            fault_point("intake-before-commit", len(newcomers))
        return [stored[new.caller, new.idempotency_key] for new in group]
