"""Intake's own copy of the procedures, compiled once a version, so that checking a submission asks nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import store
from .rules import ProcedureRules

if TYPE_CHECKING:
    from shared.database import Pool


class Catalogue:
    """The procedures as last read from the table."""

    def __init__(self) -> None:
        self._rules: dict[str, ProcedureRules] = {}

    def __len__(self) -> int:
        return len(self._rules)

    def find(self, code: str) -> ProcedureRules | None:
        return self._rules.get(code)

    async def refresh(self, pool: Pool) -> None:
        """Read versions that are new; compile those alone."""
        known = {code: rules.version for code, rules in self._rules.items()}
        async with pool.acquire() as tx:
            for procedure in await store.list_procedures(tx, known):
                self._rules[procedure["code"]] = ProcedureRules(procedure)
