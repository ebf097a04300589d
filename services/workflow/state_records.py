"""The records of `dossier.state.v1`: a dossier as its row is when the record is sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shared.clock import VIETNAM, OfficeClock, wall_now
from shared.contract.envelope import headers_of, new_id
from shared.contract.events import STATE
from shared.http.body import dumps
from shared.outbox.state_records import StateOf, StateRecord

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


def builder(office: OfficeClock) -> StateOf:
    """The function that the relay calls with the dossiers whose lifecycle events it is about to send."""

    async def records(pool: Pool, dossier_ids: Sequence[UUID]) -> list[StateRecord]:
        rows = await pool.fetch(
            "select dossier_id, dossier_code, procedure_code, procedure_version, receiving_agency, state,"
            " national_status, due_at, lifecycle_sequence, trace_id from dossiers where dossier_id = any($1::uuid[])",
            list(dossier_ids),
        )
        office_at, at = office.now(), wall_now()
        return [_record(row, office_at, at) for row in rows]

    return records


def _record(row: Any, office_at: datetime, at: datetime) -> StateRecord:
    state = {name: value for name, value in row.items() if name not in ("lifecycle_sequence", "trace_id")}
    state["due_at"] = row["due_at"].astimezone(VIETNAM) if row["due_at"] is not None else None
    state["as_of_sequence"] = row["lifecycle_sequence"]
    state["office_at"] = office_at
    key = str(row["dossier_id"])
    headers = headers_of(
        topic=STATE,
        subject=key,
        sequence=row["lifecycle_sequence"],
        ce_id=new_id(),
        type="DossierState",
        trace_id=row["trace_id"],
        recorded_at=at,
    )
    return StateRecord(STATE, key, headers, dumps(state))
