"""What people may see and decide of requests: the list, and the answer to a suspected duplicate."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from services.idlookup import store
from shared.contract.envelope import Outgoing
from shared.contract.events import IdNumberFound
from shared.outbox.publish import PublishingTransaction

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx


async def list_requests(pool: Pool, state: str | None, after: tuple[datetime, UUID] | None, limit: int) -> list[Any]:
    """Oldest first; `after` is the last row of the page before."""
    conditions: list[str] = ["true"]
    values: list[Any] = []
    if state is not None:
        values.append(state)
        conditions.append(f"state = ${len(values)}")
    if after is not None:
        values += after
        conditions.append(f"(wanted_at, request_key) > (${len(values) - 1}, ${len(values)})")
    return await pool.fetch(
        "select request_key, dossier_id, kind, state, wanted_at, asked_at, settled_at, tries as attempts, confirmed,"
        f" reason, sealed_number from requests where {' and '.join(conditions)}"
        f" order by wanted_at, request_key limit {int(limit)}",
        *values,
    )


async def lock_duplicate(tx: Tx, request_key: UUID) -> Any | None:
    """The request with its dossier's sequence, both locked; None when there is no such request."""
    dossier_id = await tx.fetchval("select dossier_id from requests where request_key = $1", request_key)
    if dossier_id is None:
        return None
    await store.lock_sequences(tx, [dossier_id])
    return await tx.fetchrow(
        "select r.*, d.sequence from requests r join dossiers d using (dossier_id) where request_key = $1"
        " for no key update of r",
        request_key,
    )


class GivenNumber(NamedTuple):
    """The number that a person has already, sealed, and what looks odd about it."""

    sealed_number: str
    warnings: tuple[str, ...]


async def give_number(
    transaction: PublishingTransaction, row: Any, given: GivenNumber, officer: str, note: str
) -> list[Outgoing]:
    """Store that the person has this number; `row` from `lock_duplicate`. Returns the events to publish."""
    await transaction.tx.execute(
        "update requests set state = 'found', sealed_number = $2, settled_at = now(), resolved_by = $3,"
        " resolved_note = $4 where request_key = $1",
        row["request_key"],
        given.sealed_number,
        officer,
        note,
    )
    fact = IdNumberFound(request_key=row["request_key"], sealed_number=given.sealed_number, warnings=given.warnings)
    facts = [(row["dossier_id"], row["trace_id"], fact)]
    return store.number_facts(transaction.writes, facts, {row["dossier_id"]: row["sequence"]})


async def send_again(tx: Tx, row: Any, officer: str, note: str) -> None:
    """It is somebody else: the same key is sent once more, confirmed. Nothing is published yet."""
    await tx.execute(
        "update requests set state = 'pending', to_send = true, confirmed = true, lost = 0, asked_at = null,"
        " settled_at = null, next_try_at = now(), resolved_by = $2, resolved_note = $3 where request_key = $1",
        row["request_key"],
        officer,
        note,
    )
