"""Opening a procedure: its recorded queue is received first, durably, in batches, oldest first; newcomers behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from services.workflow import lifecycle, store
from services.workflow.app import WorkflowApp
from services.workflow.publishing import lock_mode, set_mode
from services.workflow.store import Needs

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

log = structlog.get_logger(__name__)

BATCH = 50
LOOK_EVERY_S = 0.5


async def receive_queues(app: WorkflowApp) -> None:
    """Receive the recorded queues of procedures that are opening, until cancelled."""
    while True:
        opening = await app.service.pool().fetch("select code from intake_modes where intake_mode = 'opening'")
        for row in opening:
            while await _receive_some(app, row["code"]):
                pass
        await asyncio.sleep(LOOK_EVERY_S)


async def _receive_some(app: WorkflowApp, code: str) -> bool:
    """One batch; False when nothing is left that can be received now, or the procedure is open from now on."""
    rows = await _list_recorded(app.service.pool(), code, app.stuck.ids())
    if not rows:
        return await _open(app, code)
    received: list[bool] = []

    async def receive(part: Sequence[Any]) -> None:
        received.append(await _receive(app, code, part))

    await app.stuck.each_alone_if_together_fails(rows, receive)
    return all(received)


async def _open(app: WorkflowApp, code: str) -> bool:
    """True when a dossier was recorded meanwhile."""
    async with app.service.pool().acquire() as tx, tx.transaction():
        # Whoever records a newcomer shares this row's lock: while we hold it, nobody is on the way.
        if await lock_mode(tx, code) != "opening":
            return False
        left = {row["dossier_id"] for row in await _list_recorded(tx, code, [])}
        if left:
            return not left <= set(app.stuck.ids())
        await set_mode(tx, code, "open", None)
        await app.catalogue.refresh(tx)
    log.info("procedure open", code=code)
    return False


async def _receive(app: WorkflowApp, code: str, rows: Sequence[Any]) -> bool:
    """False when it was closed again while the queue was being received."""
    needs = Needs(code_today={row["receiving_agency"] for row in rows}, procedures=[code])
    async with app.outbox.transaction() as transaction:
        unit = await store.open_unit(transaction.tx, app, [row["dossier_id"] for row in rows], needs)
        is_opening = unit.modes.get(code) == "opening"
        for row in rows if is_opening else ():
            dossier = unit.dossiers[row["dossier_id"]]
            if dossier.state == "recorded":
                unit.remember(dossier, lifecycle.opened(dossier, unit.procedure(dossier), unit.context))
        # Also when nothing was received: the codes that were reserved are given back.
        await unit.save_with(transaction)
    return is_opening


async def _list_recorded(pool: Pool | Tx, code: str, without: Sequence[UUID]) -> list[Any]:
    return await pool.fetch(
        "select dossier_id, receiving_agency from dossiers where procedure_code = $1 and state = 'recorded'"
        " and dossier_id <> all($3::uuid[]) order by recorded_at, dossier_id limit $2",
        code,
        BATCH,
        list(without),
    )
