"""Changing the rules: procedures, intake modes and the calendar, stored with the events that publish them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING, Any

import structlog

from services.workflow.app import WorkflowApp
from services.workflow.catalogue import REFRESH_S
from services.workflow.clock.calendar import CalendarRules
from services.workflow.procedures import Procedure, shipped
from shared.contract.envelope import Outgoing, new_id
from shared.contract.events import ProcedurePublished
from shared.submission.versions import version_in_force

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

log = structlog.get_logger(__name__)

OUTSIDE_THE_VERSION = {"intake_mode", "record_only_reason"}


async def seed(app: WorkflowApp) -> None:
    """Publish the procedures and the calendar that come with hoso, where the tables do not have them yet."""
    async with app.outbox.transaction() as transaction:
        tx = transaction.tx
        await _lock(tx)
        known = {row["code"] for row in await tx.fetch("select distinct code from procedures")}
        for procedure in shipped().values():
            if procedure.code not in known:
                transaction.append(await _publish(tx, procedure, [], app.today()))
                await set_mode(tx, procedure.code, procedure.intake_mode, procedure.record_only_reason)
        await tx.execute(
            "insert into calendar (rules) values ($1) on conflict do nothing",
            CalendarRules.shipped().model_dump_json(),
        )
    await _refresh(app)


async def keep_fresh(app: WorkflowApp) -> None:
    """Read the rules every second: another instance may have changed them, or a version's day may have come."""
    while True:
        await publish_due_versions(app)
        await asyncio.sleep(REFRESH_S)


async def publish_due_versions(app: WorkflowApp) -> None:
    """Read what is new, and publish again the versions in force since today (docs/decisions/0010)."""
    await _refresh(app)
    if not app.catalogue.list_untold():
        return
    async with app.outbox.transaction() as transaction:
        await _lock(transaction.tx)
        await app.catalogue.refresh(transaction.tx)  # another instance may have published it meanwhile
        events = [await _event(transaction.tx, procedure) for procedure in app.catalogue.list_untold()]
        transaction.append(events)
    await _refresh(app)


async def put_procedure(app: WorkflowApp, procedure: Procedure) -> Procedure:
    """Store what is new: changed rules as the next version, a changed mode outside it. Returns what is stored now.

    A procedure that is opened is first `opening`: its recorded queue is received before any newcomer.
    """
    catalogue = app.catalogue
    async with app.outbox.transaction() as transaction:
        tx = transaction.tx
        await _lock(tx)
        await catalogue.refresh(tx)
        mode: str = procedure.intake_mode
        if mode == "open" and catalogue.mode(procedure.code) != "open":
            mode = "opening"
        await set_mode(tx, procedure.code, mode, procedure.record_only_reason)
        versions = catalogue.versions(procedure.code)
        stored = _find_same(versions, procedure, app.today())
        if stored is None:
            highest = max((row.version for row in versions), default=0)
            stored = procedure.model_copy(update={"version": highest + 1})
            # Last: a transaction that shares the mode's lock goes on to the lanes.
            transaction.append(await _publish(tx, stored, versions, app.today()))
    await _refresh(app)
    return catalogue.with_mode(stored)


async def put_calendar(app: WorkflowApp, rules: CalendarRules) -> None:
    async with app.service.pool().acquire() as tx:
        await tx.execute("update calendar set rules = $1, changed_at = clock_timestamp()", rules.model_dump_json())
        await app.catalogue.refresh(tx)


async def _refresh(app: WorkflowApp) -> None:
    async with app.service.pool().acquire() as tx:
        await app.catalogue.refresh(tx)


def _find_same(versions: Iterable[Procedure], procedure: Procedure, day: date) -> Procedure | None:
    """Among what stands and what is to come, the version that says the same already."""
    rows = list(versions)
    now = version_in_force(rows, day)
    still = [row for row in rows if now is not None and row.version >= now.version]
    return next((row for row in still if row.same_rules(procedure)), None)


async def set_mode(tx: Tx, code: str, mode: str, reason: str | None) -> None:
    await tx.execute(
        "insert into intake_modes (code, intake_mode, reason) values ($1, $2, $3)"
        " on conflict (code) do update set intake_mode = excluded.intake_mode,"
        " reason = coalesce(excluded.reason, intake_modes.reason), changed_at = clock_timestamp()"
        " where intake_modes.intake_mode <> excluded.intake_mode or excluded.reason is not null",
        code,
        mode,
        reason,
    )


async def lock_mode(tx: Tx, code: str) -> str:
    """The mode, held until the transaction ends, so that nobody is recorded behind a queue that has just ended."""
    found = await tx.fetchval("select intake_mode from intake_modes where code = $1 for update", code)
    return str(found or "open")


async def _lock(tx: Tx) -> None:
    await tx.execute("select pg_advisory_xact_lock(3, 0)")


async def _publish(tx: Tx, procedure: Procedure, before: Iterable[Procedure], day: date) -> list[Outgoing]:
    """Store a version beside those `before` it. Returns its event, and the one of the version in force behind it.

    The compacted topic keeps only the last record of a procedure: it must be the version in force.
    """
    await tx.execute(
        "insert into procedures (code, version, procedure) values ($1, $2, $3)",
        procedure.code,
        procedure.version,
        json.dumps(procedure.model_dump(mode="json", exclude=OUTSIDE_THE_VERSION), ensure_ascii=False),
    )
    log.info("procedure published", code=procedure.code, version=procedure.version)
    events = [await _event(tx, procedure)]
    now = version_in_force([*before, procedure], day)
    if now is not None and now.version != procedure.version:
        events.append(await _event(tx, now))
    return events


async def _event(tx: Tx, procedure: Procedure) -> Outgoing:
    await tx.execute(
        "insert into procedures_told (code, version) values ($1, $2)"
        " on conflict (code) do update set version = excluded.version",
        procedure.code,
        procedure.version,
    )
    document: dict[str, Any] = procedure.model_dump(mode="json", exclude=OUTSIDE_THE_VERSION)
    fact = ProcedurePublished(code=procedure.code, version=procedure.version, procedure=document)
    return Outgoing(None, procedure.version, fact, new_id(), new_id(), key=procedure.code)
