"""Dossiers whose decision raises in a background task: they are skipped for a while, so that the others go on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import structlog

from shared.postgres.transient import is_transient

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 60.0


class StuckDossiers:
    """The stuck dossiers of this process. `retry_after_s`: wall seconds until a dossier is tried again."""

    def __init__(self, retry_after_s: float = RETRY_AFTER_S) -> None:
        self._retry_after_s = retry_after_s
        self._since: dict[UUID, float] = {}

    def ids(self) -> list[UUID]:
        """The dossiers to skip now."""
        expired = time.monotonic() - self._retry_after_s
        self._since = {dossier_id: since for dossier_id, since in self._since.items() if since > expired}
        return list(self._since)

    async def run_each_alone_on_failure(
        self, rows: Sequence[Any], run: Callable[[Sequence[Any]], Awaitable[None]]
    ) -> None:
        """Call `run` once with all `rows`; when that raises, once with each row. A dossier that still raises is stuck.

        Each row has a `dossier_id`, and `run` opens a transaction of its own. Raises transient errors.
        """
        try:
            await run(rows)
        except Exception as error:
            if is_transient(error):
                raise
            if len(rows) > 1:
                for row in rows:
                    await self.run_each_alone_on_failure([row], run)
                return
            dossier_id = rows[0]["dossier_id"]
            self._since[dossier_id] = time.monotonic()
            # Only the error's type: its text may quote a person.
            log.error(
                "decision failed, dossier skipped for a while",
                dossier_id=str(dossier_id),
                error=type(error).__name__,
                retry_after_s=self._retry_after_s,
            )
