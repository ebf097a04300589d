"""What people may see and say of the ledger: the list of notices, and the calls still to be made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.notify.rules import CALL_LIST

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

Position = tuple[UUID, str]
"""Where a page ended: (notice, channel)."""


async def list_notices(
    pool: Pool, dossier_id: UUID | None, state: str | None, after: Position | None, limit: int
) -> list[Any]:
    """Rows in the order of their notices' ids, which is about the order in which they were wanted."""
    wheres, values = _wheres({"dossier_id": dossier_id, "state": state}, after)
    return await pool.fetch(
        "select notice_id, dossier_id, dossier_code, kind, cause, national_status, channel, instead_of, state, reason,"
        f" tries, wanted_at, settled_at, done_at, done_by from notices where {wheres}"
        f" order by notice_id, channel limit {int(limit)}",
        *values,
    )


async def list_calls(pool: Pool, agency: str | None, after: Position | None, limit: int) -> list[Any]:
    """Calls nobody has made yet, with their contacts still sealed."""
    wheres, values = _wheres({"receiving_agency": agency}, after)
    return await pool.fetch(
        "select notice_id, channel, dossier_id, dossier_code, kind, cause, national_status, result_due_at,"
        f" sealed_contact, wanted_at from notices where state = 'listed' and done_at is null and {wheres}"
        f" order by notice_id, channel limit {int(limit)}",
        *values,
    )


async def finish_call(pool: Pool, notice_id: UUID, officer: str) -> Any | None:
    """The call was made: the contact is forgotten. None when there is no such call; the first who said so stays."""
    return await pool.fetchrow(
        "update notices set done_at = coalesce(done_at, now()), done_by = coalesce(done_by, $3), sealed_contact = null"
        " where notice_id = $1 and channel = $2 and state = 'listed' returning done_at, done_by",
        notice_id,
        CALL_LIST,
        officer,
    )


async def add_readings(pool: Pool, dossier_ids: Sequence[UUID], role: str, officer: str, purpose: str) -> None:
    await pool.execute(
        "insert into contact_readings (dossier_id, role, officer, purpose)"
        " select d, $2, $3, $4 from unnest($1::uuid[]) as d",
        list(dossier_ids),
        role,
        officer,
        purpose,
    )


def _wheres(equal: dict[str, Any], after: Position | None) -> tuple[str, list[Any]]:
    """Only what was asked for becomes a condition, so that each can use its index."""
    conditions, values = ["true"], []
    for column, value in equal.items():
        if value is not None:
            values.append(value)
            conditions.append(f"{column} = ${len(values)}")
    if after is not None:
        values += after
        conditions.append(f"(notice_id, channel) > (${len(values) - 1}, ${len(values)})")
    return " and ".join(conditions), values
