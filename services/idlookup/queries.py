"""What people may see of the requests to the registry."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


class Position(NamedTuple):
    """Where a page ended."""

    wanted_at: datetime
    request_key: UUID


async def list_requests(pool: Pool, state: str | None, after: Position | None, limit: int) -> list[Any]:
    """Up to `limit` requests, oldest first; those in `state` and behind `after` where these are given."""
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
