"""The procedures by version, which of them are open, and the calendar: read from tables, kept in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING

from services.workflow.clock.calendar import CalendarRules, WorkingCalendar
from services.workflow.procedures import Procedure
from shared.postgres.transient import NotReady
from shared.submission.versions import version_in_force

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

REFRESH_S = 1.0


class ProcedureCatalogue:
    """Procedures and working days as last read. `today` returns the centre's day."""

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
