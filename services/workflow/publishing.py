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
"""The fields of a procedure that change without a new version."""


async def seed(app: WorkflowApp) -> None:
    """Store and publish the procedures and the calendar that come with hoso, if the tables do not have them."""
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
    """Read the rules every second, until cancelled. Another instance may have changed them; or a version begins."""
    while True:
        await publish_due_versions(app)
        await asyncio.sleep(REFRESH_S)


async def publish_due_versions(app: WorkflowApp) -> None:
    """Read what is new, and publish again each version whose first day has come (docs/decisions/0010)."""
    await _refresh(app)
    if not app.catalogue.list_unpublished():
        return
    async with app.outbox.transaction() as transaction:
        await _lock(transaction.tx)
        await app.catalogue.refresh(transaction.tx)  # another instance may have published them in the meantime
        events = [await _event(transaction.tx, procedure) for procedure in app.catalogue.list_unpublished()]
        transaction.append(events)
    await _refresh(app)


async def put_procedure(app: WorkflowApp, procedure: Procedure) -> Procedure:
    """Store what changed: changed rules as the next version, a changed intake mode without one.

    Returns what is stored now. A procedure that is opened is first `opening`: its recorded dossiers are received
    before new ones.
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
        stored = _find_version_with_same_rules(versions, procedure, app.today())
        if stored is None:
            highest = max((row.version for row in versions), default=0)
            stored = procedure.model_copy(update={"version": highest + 1})
            # Last: the lanes are locked after the mode, in the order of every other transaction.
            transaction.append(await _publish(tx, stored, versions, app.today()))
    await _refresh(app)
    return catalogue.with_mode(stored)


async def put_calendar(app: WorkflowApp, rules: CalendarRules) -> None:
    """Replace the calendar."""
    async with app.service.pool().acquire() as tx:
        await tx.execute("update calendar set rules = $1, changed_at = clock_timestamp()", rules.model_dump_json())
        await app.catalogue.refresh(tx)


async def _refresh(app: WorkflowApp) -> None:
    async with app.service.pool().acquire() as tx:
        await app.catalogue.refresh(tx)


def _find_version_with_same_rules(versions: Iterable[Procedure], procedure: Procedure, day: date) -> Procedure | None:
    """The version in force on that day, or a coming one, that has these rules already."""
    rows = list(versions)
    now = version_in_force(rows, day)
    candidates = [row for row in rows if now is not None and row.version >= now.version]
    return next((row for row in candidates if row.same_rules(procedure)), None)


async def set_mode(tx: Tx, code: str, mode: str, reason: str | None) -> None:
    """Store a procedure's intake mode. Without a reason the stored one stays."""
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
    """Lock a procedure's intake mode until the transaction ends, and return it. Nobody can record a dossier then."""
    mode = await tx.fetchval("select intake_mode from intake_modes where code = $1 for update", code)
    return str(mode or "open")


async def _lock(tx: Tx) -> None:
    """One transaction at a time changes the procedures: versions are numbered without gaps."""
    await tx.execute("select pg_advisory_xact_lock(3, 0)")


async def _publish(tx: Tx, procedure: Procedure, before: Iterable[Procedure], day: date) -> list[Outgoing]:
    """Store a version beside those `before` it. Returns its event, followed by one of the version in force.

    The compacted topic keeps only the last record of a procedure, which must be the version in force.
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
    """Store that this version is the last to be published, and return the event that publishes it."""
    await tx.execute(
        "insert into procedures_told (code, version) values ($1, $2)"
        " on conflict (code) do update set version = excluded.version",
        procedure.code,
        procedure.version,
    )
    document: dict[str, Any] = procedure.model_dump(mode="json", exclude=OUTSIDE_THE_VERSION)
    fact = ProcedurePublished(code=procedure.code, version=procedure.version, procedure=document)
    return Outgoing(None, procedure.version, fact, new_id(), new_id(), key=procedure.code)
