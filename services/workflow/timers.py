"""Timers: when a timer is due, the rules decide about its dossier; they may find that it no longer matters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from services.workflow import lifecycle, store
from services.workflow.app import WorkflowApp

BATCH = 50
POLL_EVERY_S = 0.5


async def fire(app: WorkflowApp) -> None:
    """Fire due timers until cancelled. The faster the office clock, the more often it looks for them."""
    while True:
        while await _fire_batch(app) == BATCH:
            pass
        await asyncio.sleep(POLL_EVERY_S / max(min(app.service.office.speed / 600, 10.0), 1.0))


async def _fire_batch(app: WorkflowApp) -> int:
    """Fire up to `BATCH` due timers. Returns how many were due."""
    due = await app.service.pool().fetch(
        "select dossier_id, kind from timers where due_at <= $1 and dossier_id <> all($3::uuid[])"
        " order by due_at limit $2",
        app.service.office.now(),
        BATCH,
        app.stuck.ids(),
    )
    if due:
        await app.stuck.run_each_alone_on_failure(due, lambda rows: _fire(app, rows))
    return len(due)


async def _fire(app: WorkflowApp, due: Sequence[Any]) -> None:
    async with app.outbox.transaction() as transaction:
        unit = await store.open_unit(transaction.tx, app, [row["dossier_id"] for row in due])
        # Read again under the dossiers' locks: a timer that was moved in the meantime is no longer due.
        still_due = await transaction.tx.fetch(
            "delete from timers t using unnest($1::uuid[], $2::text[]) as g (d, k)"
            " where t.dossier_id = g.d and t.kind = g.k and t.due_at <= $3 returning t.dossier_id, t.kind",
            [row["dossier_id"] for row in due],
            [row["kind"] for row in due],
            unit.context.office,
        )
        for row in still_due:
            dossier = unit.dossiers[row["dossier_id"]]
            unit.remember(dossier, lifecycle.hold_over(dossier, unit.procedure(dossier), unit.context))
        await unit.save_with(transaction)
