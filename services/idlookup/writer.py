"""Stores the registry's answers, many in one transaction, and publishes the results for workflow."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import timedelta

import structlog

from services.idlookup import numbers, rules, store
from services.idlookup.metrics import RegistryMetrics
from services.idlookup.rules import RegistryAnswer, Request
from services.idlookup.settings import IdlookupSettings
from services.idlookup.store import SettledRequest
from shared.clock import OfficeClock, wall_now
from shared.fault_points import fault_point
from shared.outbox.publish import Outbox
from shared.postgres.group_commit import GroupCommit
from shared.postgres.transient import is_transient
from shared.privacy.sealed import Sealer

log = structlog.get_logger(__name__)

BATCH = 500
"""The most answers in one transaction."""
LATE_BATCH = 500
"""The most late numbers reported in one transaction."""
MAX_LATE_INTERVAL_S = 30.0


class Writer:
    """Stores the answers that the workers of both kinds receive, and publishes the results."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        sealer: Sealer,
        office: OfficeClock,
        metrics: RegistryMetrics,
        settings: IdlookupSettings,
    ) -> None:
        self._outbox, self._sealer, self._office, self._metrics = outbox, sealer, office, metrics
        # Office seconds in the settings, wall seconds here.
        self._pending_after_s = settings.pending_after_s / office.speed
        self._forget_after_s = settings.forget_after_s / office.speed
        self._settled: GroupCommit[SettledRequest, None] = GroupCommit(
            self._commit, max_items=BATCH, rejected=_report_rejected
        )

    def put(self, request: Request, answer: RegistryAnswer) -> None:
        """Store the answer of a call about a request, with one of the next transactions."""
        self._settled.add(self._settle(request, answer))

    async def finish(self, within_s: float) -> None:
        """Wait until everything put is stored. Raises TimeoutError after `within_s` wall seconds."""
        await self._settled.finish(within_s)

    async def run(self) -> None:
        """Store answers until cancelled."""
        await self._settled.run()

    def _settle(self, request: Request, answer: RegistryAnswer) -> SettledRequest:
        next_state = rules.state_after(
            request, answer, wall_now(), chance=random.random(), forget_after_s=self._forget_after_s
        )
        sealed_number: str | None = None
        warnings: tuple[str, ...] = ()
        if next_state.state == "found" and next_state.number is not None:
            sealed_number = self._sealer.seal(request.dossier_id, "number", next_state.number)
            warnings = self._warnings(request, next_state.number)
        result = rules.result_of(request, next_state, sealed_number, warnings)
        return SettledRequest(request, next_state, sealed_number, result)

    def _warnings(self, request: Request, number: str) -> tuple[str, ...]:
        try:
            subject = self._sealer.open(request.dossier_id, "subject", request.sealed)
            return numbers.warnings(number, numbers.person_in(subject))
        except Exception as error:  # noqa: BLE001 - an issued number is published, whatever its subject looks like
            log.warning("a number was not compared", request_key=str(request.request_key), error=type(error).__name__)
            return (numbers.NOT_COMPARED,)

    async def _commit(self, rows: Sequence[SettledRequest]) -> Sequence[None]:
        async with self._outbox.transaction() as transaction:
            outgoing, saved = await store.save_settled(transaction.tx, transaction.writes, rows)
            transaction.append(outgoing)
            await transaction.flush()
            fault_point("idlookup-before-commit", len(saved))
        now = time.time()
        for row in saved:
            request, state = row.request, row.next_state.state
            if row.next_state.pause_s is None:
                self._metrics.answered(request.kind, state, max(now - request.asked_at.timestamp(), 0.0))
            if state in ("refused", "stopped"):
                log.info("request ended", request_key=str(request.request_key), state=state)
        return [None] * len(rows)

    async def report_late(self) -> None:
        """Publish IdNumberStillPending for late numbers, until cancelled."""
        interval_s = min(max(self._pending_after_s / 20, 0.1), MAX_LATE_INTERVAL_S)
        while True:
            try:
                reported = LATE_BATCH
                while reported == LATE_BATCH:
                    reported = await self._report_late_batch()
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("late numbers are not reported yet", error=type(error).__name__)
            await asyncio.sleep(interval_s)

    async def _report_late_batch(self) -> int:
        """Returns how many were reported."""
        async with self._outbox.transaction() as transaction:
            outgoing = await store.mark_late(
                transaction.tx,
                transaction.writes,
                wall_now() - timedelta(seconds=self._pending_after_s),
                LATE_BATCH,
                lambda at: self._office.at(at.timestamp()),
            )
            transaction.append(outgoing)
        return len(outgoing)


def _report_rejected(row: SettledRequest, error: Exception) -> None:
    log.error(
        "an answer cannot be stored; it is asked for again when the lease ends",
        request_key=str(row.request.request_key),
        error=type(error).__name__,
    )
