"""Workflow's HTTP and background tasks, put together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastapi import APIRouter

from services.workflow import commands, dossiers_api, feed, rules_api, tasks_api
from services.workflow.catalogue import ProcedureCatalogue, keep_fresh, office_day, seed
from services.workflow.stages import board
from shared.clock import VIETNAM, wall_now
from shared.contract.envelope import headers_of, new_id
from shared.contract.events import STATE
from shared.http.body import dumps
from shared.outbox.state_records import StateOf, StateRecord
from shared.service import Background, Service

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

BACKGROUND: tuple[Background, ...] = (keep_fresh, commands.fire_timers, commands.open_procedures)
ON_READY: tuple[Background, ...] = (seed,)
REFRESHERS: tuple[Background, ...] = (board.refresh,)


def routers(service: Service) -> list[APIRouter]:
    book = ProcedureCatalogue(lambda: office_day(service))
    service.extras.update(rulebook=book, calendar=book.calendar)
    whole = APIRouter()
    for part in (tasks_api, dossiers_api, rules_api, board, feed):
        whole.include_router(part.router(service))
    return [whole]


def state_of(service: Service) -> StateOf:
    """The compacted state records: from the rows as they are now, never from history."""

    async def records(pool: Pool, dossier_ids: Sequence[UUID]) -> list[StateRecord]:
        rows = await pool.fetch(
            "select dossier_id, dossier_code, procedure_code, procedure_version, receiving_agency, state,"
            " national_status, due_at, lifecycle_sequence, trace_id from dossiers where dossier_id = any($1::uuid[])",
            list(dossier_ids),
        )
        office_at, wall = service.office.now(), wall_now()
        return [_state_record(row, office_at, wall) for row in rows]

    return records


def _state_record(row: Any, office_at: datetime, wall: datetime) -> StateRecord:
    said = {name: value for name, value in row.items() if name not in ("lifecycle_sequence", "trace_id")}
    said["as_of_sequence"] = row["lifecycle_sequence"]
    said["office_at"] = office_at
    said["due_at"] = row["due_at"] and row["due_at"].astimezone(VIETNAM)
    key = str(row["dossier_id"])
    headers = headers_of(
        topic=STATE,
        subject=key,
        sequence=row["lifecycle_sequence"],
        ce_id=new_id(),
        type="DossierState",
        trace_id=row["trace_id"],
        recorded_at=wall,
    )
    return StateRecord(STATE, key, headers, dumps(said))
