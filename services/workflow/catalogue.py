"""The rules in force: procedures by version, which are open, and the calendar; stored in tables, kept in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import structlog

from services.workflow.clock.calendar import CalendarRules, WorkingCalendar
from services.workflow.procedures import Procedure, shipped
from shared.clock import VIETNAM
from shared.contract.envelope import Outgoing, new_id
from shared.contract.events import ProcedurePublished
from shared.outbox.publish import stage
from shared.postgres.pool import NotReady
from shared.service import Service
from shared.submission.versions import version_in_force

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

log = structlog.get_logger(__name__)

REFRESH_S = 1.0
OUTSIDE_THE_VERSION = {"intake_mode", "record_only_reason"}


class ProcedureCatalogue:
    """What the rules need to know of procedures and working days, as last read. `today`: the centre's day."""

    def __init__(self, today: Callable[[], date]) -> None:
        self._today = today
        self._versions: dict[str, dict[int, Procedure]] = {}
        self._told: dict[str, int] = {}
        """The version that was told last on the procedures' topic."""
        self._modes: dict[str, tuple[str, str | None]] = {}
        self._shown: dict[tuple[str, date], Procedure | None] = {}
        """`in_force` as last asked for: copying a procedure for each dossier was a thirtieth of all work."""
        self._calendar = WorkingCalendar()
        self._calendar_rules = ""
        self._refreshed = float("-inf")
        self._loaded = False
        self._reading = asyncio.Lock()

    def check_loaded(self) -> None:
        """Raises NotReady (503) until the procedures that come with hoso are in the tables."""
        if not self._loaded:
            raise NotReady("workflow")

    def calendar(self) -> WorkingCalendar:
        return self._calendar

    def in_force(self, code: str, day: date) -> Procedure | None:
        """The version that stands on a day, with its intake mode; None before the first has begun."""
        if (code, day) not in self._shown:
            found = version_in_force(self.versions(code), day)
            begun = found is not None and found.valid_from <= day
            self._shown[code, day] = self.with_mode(found) if found is not None and begun else None
        return self._shown[code, day]

    def current(self, code: str) -> Procedure | None:
        """The version that stands today, with its intake mode; before the first has begun, that one."""
        found = version_in_force(self.versions(code), self._today())
        return self.with_mode(found) if found is not None else None

    def version(self, code: str, version: int) -> Procedure | None:
        return self._versions.get(code, {}).get(version)

    def versions(self, code: str) -> Sequence[Procedure]:
        return tuple(self._versions.get(code, {}).values())

    def list(self) -> list[Procedure]:
        return [found for code in sorted(self._versions) if (found := self.current(code)) is not None]

    def list_untold(self) -> Sequence[Procedure]:
        """What stands today and was not the last told: its day has come."""
        return [found for found in self.list() if self._told.get(found.code) != found.version]

    def mode(self, code: str) -> str:
        """`open`, `record_only`, or `opening` while the recorded queue is being received."""
        return self._modes.get(code, ("open", None))[0]

    def with_mode(self, procedure: Procedure) -> Procedure:
        mode, reason = self._modes.get(procedure.code, ("open", None))
        shown = "record_only" if mode == "record_only" else "open"
        return procedure.model_copy(
            update={"intake_mode": shown, "record_only_reason": reason if mode != "open" else None}
        )

    async def refresh_if_older(self, tx: Tx, seconds: float = REFRESH_S) -> None:
        """`refresh`, unless that was done within the last seconds."""
        if time.monotonic() - self._refreshed > seconds:
            await self.refresh(tx)

    async def refresh(self, tx: Tx) -> None:
        """Read what is new. Cheap when nothing is."""
        # One at a time: a slower reader must not put back what a quicker one has replaced.
        async with self._reading:
            await self._refresh(tx)

    async def _refresh(self, tx: Tx) -> None:
        for row in await tx.fetch("select code, version from procedures"):
            code, version = row["code"], row["version"]
            known = self._versions.setdefault(code, {})
            if version not in known:
                text = await tx.fetchval(
                    "select procedure from procedures where code = $1 and version = $2", code, version
                )
                known[version] = Procedure.model_validate(json.loads(text))
        self._told = {
            row["code"]: row["version"] for row in await tx.fetch("select code, version from procedures_told")
        }
        self._modes = {
            row["code"]: (row["intake_mode"], row["reason"])
            for row in await tx.fetch("select code, intake_mode, reason from intake_modes")
        }
        self._shown.clear()
        rules = await tx.fetchval("select rules::text from calendar")
        if rules is not None and rules != self._calendar_rules:
            self._calendar = WorkingCalendar(CalendarRules.model_validate(json.loads(rules)))
            self._calendar_rules = rules
        self._refreshed = time.monotonic()
        self._loaded = bool(self._versions)


def office_day(service: Service) -> date:
    return service.office.now().astimezone(VIETNAM).date()


async def seed(service: Service) -> None:
    """Publish the procedures and the calendar that come with hoso, where the tables do not have them yet."""
    book: ProcedureCatalogue = service.extras["rulebook"]
    async with service.pool().acquire() as tx:
        async with tx.transaction():
            await _lock(tx)
            known = {row["code"] for row in await tx.fetch("select distinct code from procedures")}
            events = []
            for procedure in shipped().values():
                if procedure.code not in known:
                    events += await _publish(tx, procedure, [], office_day(service))
                    await set_mode(tx, procedure.code, procedure.intake_mode, procedure.record_only_reason)
            await tx.execute(
                "insert into calendar (rules) values ($1) on conflict do nothing",
                CalendarRules.shipped().model_dump_json(),
            )
            lanes = await stage(tx, events)
        service.wake(lanes)
        await book.refresh(tx)


async def keep_fresh(service: Service) -> None:
    """Another instance may have changed the rules, or a version's day may have come."""
    while True:
        await look_at_rules(service)
        await asyncio.sleep(REFRESH_S)


async def look_at_rules(service: Service) -> None:
    """Read what is new, and tell again what stands since today (docs/decisions/0010)."""
    book: ProcedureCatalogue = service.extras["rulebook"]
    async with service.pool().acquire() as tx:
        await book.refresh(tx)
        if not book.list_untold():
            return
        async with tx.transaction():
            await _lock(tx)
            await book.refresh(tx)  # another instance may have told it meanwhile
            lanes = await stage(tx, [await _tell(tx, procedure) for procedure in book.list_untold()])
        service.wake(lanes)
        await book.refresh(tx)


async def put_procedure(service: Service, procedure: Procedure) -> Procedure:
    """Store what is new: changed rules as the next version, a changed mode outside it. Returns what is stored now.

    A procedure that is opened is first `opening`: its recorded queue is received before any newcomer.
    """
    book: ProcedureCatalogue = service.extras["rulebook"]
    async with service.pool().acquire() as tx:
        lanes: set[int] = set()
        async with tx.transaction():
            await _lock(tx)
            await book.refresh(tx)
            mode: str = procedure.intake_mode
            if mode == "open" and book.mode(procedure.code) != "open":
                mode = "opening"
            await set_mode(tx, procedure.code, mode, procedure.record_only_reason)
            versions = book.versions(procedure.code)
            stored = _find_same(versions, procedure, office_day(service))
            if stored is None:
                highest = max((row.version for row in versions), default=0)
                stored = procedure.model_copy(update={"version": highest + 1})
                # Last: whoever holds the mode for sharing is on the way to the lanes.
                lanes = await stage(tx, await _publish(tx, stored, versions, office_day(service)))
        service.wake(lanes)
        await book.refresh(tx)
    return book.with_mode(stored)


def _find_same(versions: Iterable[Procedure], procedure: Procedure, day: date) -> Procedure | None:
    """Among what stands and what is to come, the version that says the same already."""
    rows = list(versions)
    now = version_in_force(rows, day)
    still = [row for row in rows if now is not None and row.version >= now.version]
    return next((row for row in still if row.same_rules(procedure)), None)


async def put_calendar(service: Service, rules: CalendarRules) -> None:
    book: ProcedureCatalogue = service.extras["rulebook"]
    async with service.pool().acquire() as tx:
        await tx.execute("update calendar set rules = $1, changed_at = clock_timestamp()", rules.model_dump_json())
        await book.refresh(tx)


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
    """Store a version beside those `before` it, and tell it; where another stands today, that one once more behind it.

    The topic keeps only the last record of a procedure for whoever comes later: it must be what stands.
    """
    await tx.execute(
        "insert into procedures (code, version, procedure) values ($1, $2, $3)",
        procedure.code,
        procedure.version,
        json.dumps(procedure.model_dump(mode="json", exclude=OUTSIDE_THE_VERSION), ensure_ascii=False),
    )
    log.info("procedure published", code=procedure.code, version=procedure.version)
    events = [await _tell(tx, procedure)]
    now = version_in_force([*before, procedure], day)
    if now is not None and now.version != procedure.version:
        events.append(await _tell(tx, now))
    return events


async def _tell(tx: Tx, procedure: Procedure) -> Outgoing:
    await tx.execute(
        "insert into procedures_told (code, version) values ($1, $2)"
        " on conflict (code) do update set version = excluded.version",
        procedure.code,
        procedure.version,
    )
    document: dict[str, Any] = procedure.model_dump(mode="json", exclude=OUTSIDE_THE_VERSION)
    fact = ProcedurePublished(code=procedure.code, version=procedure.version, procedure=document)
    return Outgoing(None, procedure.version, fact, new_id(), new_id(), key=procedure.code)
