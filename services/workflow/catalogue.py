"""The procedures by version, their intake modes and the calendar: read from tables and kept in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from services.workflow.clock.calendar import CalendarRules, WorkingCalendar
from services.workflow.procedures import Procedure
from shared.postgres.transient import NotReady
from shared.submission.versions import version_in_force

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

REFRESH_S = 1.0


class IntakeMode(NamedTuple):
    """`mode`: `open`, `record_only`, or `opening` while the recorded queue is being received; and why not `open`."""

    mode: str
    reason: str | None


OPEN = IntakeMode("open", None)


class ProcedureCatalogue:
    """Procedures and working days as last read. `today` returns the day of office time."""

    def __init__(self, today: Callable[[], date]) -> None:
        self._today = today
        self._versions: dict[str, dict[int, Procedure]] = {}
        self._published: dict[str, int] = {}
        """The version that was published last on the procedures' topic."""
        self._modes: dict[str, IntakeMode] = {}
        self._in_force: dict[tuple[str, date], Procedure | None] = {}
        """The answers of `in_force` since the last refresh: without them each dossier would copy a procedure."""
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
        """The version in force on a day, with its intake mode; None before the first has begun."""
        if (code, day) not in self._in_force:
            found = version_in_force(self.versions(code), day)
            begun = found is not None and found.valid_from <= day
            self._in_force[code, day] = self.with_mode(found) if found is not None and begun else None
        return self._in_force[code, day]

    def current(self, code: str) -> Procedure | None:
        """The version in force today, with its intake mode; before any has begun, the one that begins first."""
        found = version_in_force(self.versions(code), self._today())
        return self.with_mode(found) if found is not None else None

    def version(self, code: str, version: int) -> Procedure | None:
        """That version, without its intake mode."""
        return self._versions.get(code, {}).get(version)

    def versions(self, code: str) -> Sequence[Procedure]:
        """Every version, without its intake mode."""
        return tuple(self._versions.get(code, {}).values())

    def list(self) -> list[Procedure]:
        """The current version of every procedure, by code."""
        return [current for code in sorted(self._versions) if (current := self.current(code)) is not None]

    def list_unpublished(self) -> Sequence[Procedure]:
        """The current versions that were not the last to be published: their first day has come."""
        return [current for current in self.list() if self._published.get(current.code) != current.version]

    def mode(self, code: str) -> str:
        """`IntakeMode.mode` of a procedure."""
        return self._modes.get(code, OPEN).mode

    def with_mode(self, procedure: Procedure) -> Procedure:
        """A copy with its intake mode as people see it: a procedure that is opening is open."""
        mode, reason = self._modes.get(procedure.code, OPEN)
        outward = "record_only" if mode == "record_only" else "open"
        return procedure.model_copy(
            update={"intake_mode": outward, "record_only_reason": reason if mode != "open" else None}
        )

    async def refresh_if_older(self, tx: Tx, seconds: float = REFRESH_S) -> None:
        """`refresh`, unless the last one is at most so many seconds ago."""
        if time.monotonic() - self._refreshed > seconds:
            await self.refresh(tx)

    async def refresh(self, tx: Tx) -> None:
        """Read what is new. Cheap when nothing is."""
        # One refresh at a time: a slow one must not replace what a later one has read.
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
        self._published = {
            row["code"]: row["version"] for row in await tx.fetch("select code, version from procedures_told")
        }
        self._modes = {
            row["code"]: IntakeMode(row["intake_mode"], row["reason"])
            for row in await tx.fetch("select code, intake_mode, reason from intake_modes")
        }
        self._in_force.clear()
        rules = await tx.fetchval("select rules::text from calendar")
        if rules is not None and rules != self._calendar_rules:
            self._calendar = WorkingCalendar(CalendarRules.model_validate(json.loads(rules)))
            self._calendar_rules = rules
        self._refreshed = time.monotonic()
        self._loaded = bool(self._versions)
