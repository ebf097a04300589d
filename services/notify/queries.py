"""What people see of the ledger, the list of notices and the call list, and the report that a call was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from services.notify.rules import CALL_LIST

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


class Position(NamedTuple):
    """Where a page ended."""

    notice_id: UUID
    channel: str


async def list_notices(
    pool: Pool, dossier_id: UUID | None, state: str | None, after: Position | None, limit: int
) -> list[Any]:
    """Rows in the order of their notices' ids, which is about the order in which they were wanted."""
    condition, values = _condition({"dossier_id": dossier_id, "state": state}, after)
    return await pool.fetch(
        "select notice_id, dossier_id, dossier_code, kind, cause, national_status, channel, instead_of, state, reason,"
        f" tries, wanted_at, settled_at, done_at, done_by from notices where {condition}"
        f" order by notice_id, channel limit {int(limit)}",
        *values,
    )


async def list_calls(pool: Pool, agency: str | None, after: Position | None, limit: int) -> list[Any]:
    """Calls that are still to be made, with sealed contacts."""
    condition, values = _condition({"receiving_agency": agency}, after)
    return await pool.fetch(
        "select notice_id, channel, dossier_id, dossier_code, kind, cause, national_status, result_due_at,"
        f" sealed_contact, wanted_at from notices where state = 'listed' and done_at is null and {condition}"
        f" order by notice_id, channel limit {int(limit)}",
        *values,
    )


async def finish_call(pool: Pool, notice_id: UUID, officer: str) -> Any | None:
    """Store that a call was made, and delete its contact. Returns the first report of it; None without such a call."""
    return await pool.fetchrow(
        "update notices set done_at = coalesce(done_at, now()), done_by = coalesce(done_by, $3), sealed_contact = null"
        " where notice_id = $1 and channel = $2 and state = 'listed' returning done_at, done_by",
        notice_id,
        CALL_LIST,
        officer,
    )


async def add_readings(pool: Pool, dossier_ids: Sequence[UUID], role: str, officer: str, purpose: str) -> None:
    """Record who read the contacts of these dossiers, and for what."""
    await pool.execute(
        "insert into contact_readings (dossier_id, role, officer, purpose)"
        " select d, $2, $3, $4 from unnest($1::uuid[]) as d",
        list(dossier_ids),
        role,
        officer,
        purpose,
    )


def _condition(equal: dict[str, Any], after: Position | None) -> tuple[str, list[Any]]:
    """(SQL, its values). A value that is None adds no condition, so that each query can use its index."""
    conditions, values = ["true"], []
    for column, value in equal.items():
        if value is not None:
            values.append(value)
            conditions.append(f"{column} = ${len(values)}")
    if after is not None:
        values += after
        conditions.append(f"(notice_id, channel) > (${len(values) - 1}, ${len(values)})")
    return " and ".join(conditions), values
