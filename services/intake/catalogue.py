"""Intake's own copy of the procedures: submissions are checked without asking another service."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from services.intake import store
from shared.submission.rules import ProcedureRules
from shared.submission.versions import version_in_force

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
        """The rules of a code that are in force on a day (`version_in_force`); None for an unknown code."""
        return version_in_force(self._rules.get(code, {}).values(), day)

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
