"""Stores the registry's answers, many in one transaction, and publishes what follows for workflow."""

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
from services.idlookup.store import SettledRequest
from shared.clock import OfficeClock, wall_now
from shared.fault_points import fault_point
from shared.outbox.publish import Outbox
from shared.postgres.group_commit import GroupCommit
from shared.postgres.transient import is_transient
from shared.privacy.sealed import Sealer

log = structlog.get_logger(__name__)

BATCH = 500
"""Answers in one transaction at most."""
LATE_BATCH = 500
MAX_LATE_LOOK_S = 30.0


class Writer:
    """Stores the answers of both kinds of workers, and publishes what follows from them."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        sealer: Sealer,
        office: OfficeClock,
        metrics: RegistryMetrics,
        pending_after_s: float,
        forget_after_s: float,
    ) -> None:
        """`pending_after_s`, `forget_after_s`: wall seconds."""
        self._outbox, self._sealer, self._office, self._metrics = outbox, sealer, office, metrics
        self._pending_after_s, self._forget_after_s = pending_after_s, forget_after_s
        self._settled: GroupCommit[SettledRequest, None] = GroupCommit(
            self._commit, max_items=BATCH, rejected=_report_rejected
        )

    def put(self, request: Request, answer: RegistryAnswer) -> None:
        """Store what is known of a request after a call, with one of the next transactions."""
        self._settled.add(self._settle(request, answer))

    async def finish(self, within_s: float) -> None:
        """Wait until everything put is stored. Raises TimeoutError."""
        await self._settled.finish(within_s)

    async def run(self) -> None:
        """Store answers until cancelled."""
        await self._settled.run()

    def _settle(self, request: Request, answer: RegistryAnswer) -> SettledRequest:
        made = rules.after(request, answer, wall_now(), chance=random.random(), forget_after_s=self._forget_after_s)
        sealed: str | None = None
        odd: tuple[str, ...] = ()
        if made.state == "found" and made.number is not None:
            sealed = self._sealer.seal(request.dossier_id, "number", made.number)
            odd = self._odd(request, made.number)
        return SettledRequest(request, made, sealed, rules.fact_of(request, made, sealed, odd))

    def _odd(self, request: Request, number: str) -> tuple[str, ...]:
        try:
            subject = self._sealer.open(request.dossier_id, "subject", request.sealed)
            return numbers.warnings(number, numbers.person_in(subject))
        except Exception as error:  # noqa: BLE001 - a number that is there must be told, whatever its subject looks like
            log.warning("a number was not compared", request_key=str(request.request_key), error=type(error).__name__)
            return ("not-compared",)

    async def _commit(self, rows: Sequence[SettledRequest]) -> Sequence[None]:
        async with self._outbox.transaction() as transaction:
            outgoing, saved = await store.save_settled(transaction.tx, transaction.writes, rows)
            transaction.append(outgoing)
            await transaction.flush()
            fault_point("idlookup-before-commit", len(saved))
        now = time.time()
        for row in saved:
            if row.made.pause_s is None:
                since = row.request.asked_at.timestamp()
                self._metrics.answered(row.request.kind, row.made.state, max(now - since, 0.0))
            if row.made.state in ("refused", "stopped"):
                log.info("request ended", request_key=str(row.request.request_key), state=row.made.state)
        return [None] * len(rows)

    async def report_late(self) -> None:
        """Publish IdNumberStillPending for late numbers, until cancelled."""
        every_s = min(max(self._pending_after_s / 20, 0.1), MAX_LATE_LOOK_S)
        while True:
            try:
                reported = LATE_BATCH
                while reported == LATE_BATCH:
                    reported = await self._report_some_late()
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("late numbers not reported yet", error=type(error).__name__)
            await asyncio.sleep(every_s)

    async def _report_some_late(self) -> int:
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
        "an answer cannot be stored; it is asked for again",
        request_key=str(row.request.request_key),
        error=type(error).__name__,
    )
