"""Intake's own copy of the procedures: submissions are checked without asking another service."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from services.intake import store
from shared.submission.rules import ProcedureRules

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


class ProcedureCatalogue:
    """All versions of all procedures, each compiled once."""

    def __init__(self) -> None:
        self._rules: dict[str, dict[int, ProcedureRules]] = {}

    def __len__(self) -> int:
        """The number of procedures, not of versions."""
        return len(self._rules)

    def find(self, code: str, day: date) -> ProcedureRules | None:
        """The highest version that has begun on that day, or before any has, the one that begins first."""
        rows = sorted(self._rules.get(code, {}).values(), key=lambda rules: rules.version, reverse=True)
        begun = next((rules for rules in rows if rules.valid_from <= day), None)
        return begun or min(rows, key=lambda rules: rules.valid_from, default=None)

    async def refresh(self, pool: Pool) -> None:
        """Read and compile the versions that are new in the table."""
        known = [(code, version) for code, versions in self._rules.items() for version in versions]
        async with pool.acquire() as tx:
            for procedure in await store.list_procedures(tx, known):
                self.keep(procedure)

    def keep(self, document: Mapping[str, Any]) -> None:
        """Compile one version, a document as in ProcedurePublished."""
        rules = ProcedureRules(document)
        self._rules.setdefault(rules.code, {})[rules.version] = rules
