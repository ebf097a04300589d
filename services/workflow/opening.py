"""Opening a procedure that was record-only: its recorded dossiers are received in batches, oldest first.

While that goes on the mode is `opening`, and new submissions queue behind. The mode and the queue are in the database,
so that opening goes on after a crash.
"""

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
POLL_EVERY_S = 0.5


async def receive_queues(app: WorkflowApp) -> None:
    """Receive the recorded queues of procedures that are opening, until cancelled."""
    while True:
        opening = await app.service.pool().fetch("select code from intake_modes where intake_mode = 'opening'")
        for row in opening:
            while await _receive_batch(app, row["code"]):
                pass
        await asyncio.sleep(POLL_EVERY_S)


async def _receive_batch(app: WorkflowApp, code: str) -> bool:
    """Receive one batch; when the queue is empty, open the procedure. Returns whether there is more to receive now."""
    rows = await _list_recorded(app.service.pool(), code, skip=app.stuck.ids())
    if not rows:
        return await _open_unless_recorded(app, code)
    still_opening: list[bool] = []

    async def receive(part: Sequence[Any]) -> None:
        still_opening.append(await _receive(app, code, part))

    await app.stuck.run_each_alone_on_failure(rows, receive)
    return all(still_opening)


async def _open_unless_recorded(app: WorkflowApp, code: str) -> bool:
    """Set the mode to `open` unless dossiers are recorded. Returns whether there are some that are not stuck."""
    async with app.service.pool().acquire() as tx, tx.transaction():
        # A transaction that records a submission shares this lock: while it is held here, there is none.
        if await lock_mode(tx, code) != "opening":
            return False
        recorded = {row["dossier_id"] for row in await _list_recorded(tx, code, skip=[])}
        if recorded:
            return not recorded <= set(app.stuck.ids())
        await set_mode(tx, code, "open", None)
        await app.catalogue.refresh(tx)
    log.info("procedure open", code=code)
    return False


async def _receive(app: WorkflowApp, code: str, rows: Sequence[Any]) -> bool:
    """Receive these dossiers. Returns False, and receives none, when the procedure is no longer opening."""
    needs = Needs(code_today={row["receiving_agency"] for row in rows}, procedures=[code])
    async with app.outbox.transaction() as transaction:
        unit = await store.open_unit(transaction.tx, app, [row["dossier_id"] for row in rows], needs)
        is_opening = unit.modes.get(code) == "opening"
        for row in rows if is_opening else ():
            dossier = unit.dossiers[row["dossier_id"]]
            if dossier.state == "recorded":
                unit.remember(dossier, lifecycle.opened(dossier, unit.procedure(dossier), unit.context))
        # Also when nothing was received: saving gives reserved codes back.
        await unit.save_with(transaction)
    return is_opening


async def _list_recorded(pool: Pool | Tx, code: str, *, skip: Sequence[UUID]) -> list[Any]:
    return await pool.fetch(
        "select dossier_id, receiving_agency from dossiers where procedure_code = $1 and state = 'recorded'"
        " and dossier_id <> all($3::uuid[]) order by recorded_at, dossier_id limit $2",
        code,
        BATCH,
        list(skip),
    )
