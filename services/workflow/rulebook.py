"""The rules in force: procedures by version, which are open, and the calendar; stored in tables, kept in memory."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import structlog

from shared.database import NotReady
from shared.envelope import Outgoing, new_id
from shared.events import ProcedurePublished
from shared.outbox import stage
from shared.service import Service

from .procedures import Procedure, shipped
from .working_calendar import CalendarRules, WorkingCalendar

if TYPE_CHECKING:
    from shared.database import Tx

log = structlog.get_logger(__name__)

REFRESH_S = 1.0
OUTSIDE_THE_VERSION = {"intake_mode", "record_only_reason"}


class Rulebook:
    """What the rules need to know of procedures and working days, as last read."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, int], Procedure] = {}
        self._current: dict[str, int] = {}
        self._modes: dict[str, tuple[str, str | None]] = {}
        self._shown: dict[str, Procedure] = {}
        """`current` as last asked for: copying a procedure for each dossier was a thirtieth of all work."""
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

    def current(self, code: str) -> Procedure | None:
        """The version in force, with its intake mode."""
        if code not in self._shown and (version := self._current.get(code)) is not None:
            self._shown[code] = self._with_mode(self._versions[code, version])
        return self._shown.get(code)

    def version(self, code: str, version: int) -> Procedure | None:
        return self._versions.get((code, version))

    def list(self) -> list[Procedure]:
        return [self._with_mode(self._versions[code, version]) for code, version in sorted(self._current.items())]

    def mode(self, code: str) -> str:
        """`open`, `record_only`, or `opening` while the recorded queue is being received."""
        return self._modes.get(code, ("open", None))[0]

    def _with_mode(self, procedure: Procedure) -> Procedure:
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
            key = (row["code"], row["version"])
            if key not in self._versions:
                text = await tx.fetchval("select procedure from procedures where code = $1 and version = $2", *key)
                self._versions[key] = Procedure.model_validate(json.loads(text))
            self._current[row["code"]] = max(self._current.get(row["code"], 0), row["version"])
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
        self._loaded = bool(self._current)


async def seed(service: Service) -> None:
    """Publish the procedures and the calendar that come with hoso, where the tables do not have them yet."""
    book: Rulebook = service.extras["rulebook"]
    async with service.pool().acquire() as tx:
        async with tx.transaction():
            await _lock(tx)
            known = {row["code"] for row in await tx.fetch("select distinct code from procedures")}
            events = []
            for procedure in shipped().values():
                if procedure.code not in known:
                    events.append(await _publish(tx, procedure))
                    await set_mode(tx, procedure.code, procedure.intake_mode, procedure.record_only_reason)
            await tx.execute(
                "insert into calendar (rules) values ($1) on conflict do nothing",
                CalendarRules.shipped().model_dump_json(),
            )
            lanes = await stage(tx, events)
        service.wake(lanes)
        await book.refresh(tx)


async def keep_fresh(service: Service) -> None:
    """Another instance may have changed the rules."""
    book: Rulebook = service.extras["rulebook"]
    while True:
        async with service.pool().acquire() as tx:
            await book.refresh(tx)
        await asyncio.sleep(REFRESH_S)


async def put_procedure(service: Service, procedure: Procedure) -> Procedure:
    """Store what is new: changed rules as the next version, a changed mode outside it. Returns what is in force.

    A procedure that is opened is first `opening`: its recorded queue is received before any newcomer.
    """
    book: Rulebook = service.extras["rulebook"]
    async with service.pool().acquire() as tx:
        lanes: set[int] = set()
        async with tx.transaction():
            await _lock(tx)
            await book.refresh(tx)
            known = book.current(procedure.code)
            mode: str = procedure.intake_mode
            if mode == "open" and book.mode(procedure.code) != "open":
                mode = "opening"
            await set_mode(tx, procedure.code, mode, procedure.record_only_reason)
            if known is None or not known.same_rules(procedure):
                next_version = procedure.model_copy(update={"version": known.version + 1 if known else 1})
                # Last: whoever holds the mode for sharing is on the way to the lanes.
                lanes = await stage(tx, [await _publish(tx, next_version)])
        service.wake(lanes)
        await book.refresh(tx)
    found = book.current(procedure.code)
    assert found is not None
    return found


async def put_calendar(service: Service, rules: CalendarRules) -> None:
    book: Rulebook = service.extras["rulebook"]
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


async def _publish(tx: Tx, procedure: Procedure) -> Outgoing:
    document: dict[str, Any] = procedure.model_dump(mode="json", exclude=OUTSIDE_THE_VERSION)
    await tx.execute(
        "insert into procedures (code, version, procedure) values ($1, $2, $3)",
        procedure.code,
        procedure.version,
        json.dumps(document, ensure_ascii=False),
    )
    fact = ProcedurePublished(code=procedure.code, version=procedure.version, procedure=document)
    log.info("procedure published", code=procedure.code, version=procedure.version)
    return Outgoing(None, procedure.version, fact, new_id(), new_id(), key=procedure.code)
