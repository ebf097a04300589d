"""Dossiers that raise when nobody is there to be told: passed over for a while, so that the others of a batch go on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import structlog

from shared.postgres.transient import is_transient

log = structlog.get_logger(__name__)

AGAIN_S = 60.0


class Stuck:
    """Of this process; the next one finds out by itself. `again_s`: wall seconds until a dossier is tried again."""

    def __init__(self, again_s: float = AGAIN_S) -> None:
        self._again_s = again_s
        self._since: dict[UUID, float] = {}

    def ids(self) -> list[UUID]:
        """Who is to be passed over now."""
        until = time.monotonic() - self._again_s
        self._since = {dossier_id: since for dossier_id, since in self._since.items() if since > until}
        return list(self._since)

    async def each_alone_if_together_fails(
        self, rows: Sequence[Any], do: Callable[[Sequence[Any]], Awaitable[None]]
    ) -> None:
        """`do` all `rows`, in a transaction; where that raises, each in its own. Raises what would pass by itself."""
        try:
            await do(rows)
        except Exception as error:
            if is_transient(error):
                raise
            if len(rows) > 1:
                for row in rows:
                    await self.each_alone_if_together_fails([row], do)
                return
            dossier_id = rows[0]["dossier_id"]
            self._since[dossier_id] = time.monotonic()
            # Its text may quote a person.
            log.error("a dossier is passed over", dossier_id=str(dossier_id), error=type(error).__name__)
