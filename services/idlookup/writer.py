"""Writes down what the registry has said, many answers in one transaction, and tells workflow."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from services.idlookup import numbers, rules, store
from services.idlookup.metrics import RegistryMetrics
from services.idlookup.rules import RegistryAnswer, Request
from services.idlookup.store import SettledRequest
from shared.clock import OfficeClock, wall_now
from shared.fault_points import fault_point
from shared.outbox.publish import Wake, stage
from shared.postgres.transient import is_transient
from shared.postgres.writes import Writes
from shared.privacy.sealed import Sealer

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

BATCH = 500
"""Answers in one transaction at most."""
LATE_BATCH = 500
MAX_LATE_LOOK_S = 30.0


class Writer:
    """One for both kinds. `after_save` is told when rows were written, so that a caller may look for more."""

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        sealer: Sealer,
        office: OfficeClock,
        wake: Wake,
        meter: RegistryMetrics,
        pending_after_s: float,
        forget_after_s: float,
    ) -> None:
        """`pending_after_s`, `forget_after_s`: wall seconds."""
        self._pool, self._sealer, self._office, self._wake, self._meter = pool, sealer, office, wake, meter
        self._pending_after_s, self._forget_after_s = pending_after_s, forget_after_s
        self._heard: asyncio.Queue[tuple[Request, RegistryAnswer]] = asyncio.Queue()

    def put(self, request: Request, answer: RegistryAnswer) -> None:
        self._heard.put_nowait((request, answer))

    async def finish(self, within_s: float) -> None:
        """Until everything put is written. Raises TimeoutError."""
        await asyncio.wait_for(self._heard.join(), within_s)

    async def run(self) -> None:
        """Whatever was heard while the last transaction was under way shares the next one."""
        while True:
            rows = [await self._heard.get()]
            while len(rows) < BATCH and not self._heard.empty():
                rows.append(self._heard.get_nowait())
            await self._commit_whatever_happens([self._settle(*row) for row in rows])
            for _ in rows:
                self._heard.task_done()

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

    async def _commit_whatever_happens(self, rows: list[SettledRequest]) -> None:
        pause = 0.05
        while True:
            try:
                await self._commit(rows)
                return
            except Exception as error:  # noqa: BLE001 - one bad row must not keep the others unwritten
                if not is_transient(error):
                    kind = type(error).__name__
                    break
                log.warning("answers not written yet", rows=len(rows), error=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
        if len(rows) > 1:
            for row in rows:
                await self._commit_whatever_happens([row])
        else:
            key = str(rows[0].request.request_key)
            log.error("an answer cannot be written; it is asked for again", request_key=key, error=kind)

    async def _commit(self, rows: Sequence[SettledRequest]) -> None:
        async with self._pool().acquire() as tx, tx.transaction():
            writes = Writes()
            outgoing, saved = await store.save_settled(tx, writes, rows)
            lanes = await stage(tx, outgoing, writes)
            fault_point("idlookup-before-commit", len(saved))
        self._wake(lanes)
        now = time.time()
        for row in saved:
            if row.made.pause_s is None:
                since = row.request.asked_at.timestamp()
                self._meter.answered(row.request.kind, row.made.state, max(now - since, 0.0))
            if row.made.state in ("refused", "stopped"):
                log.info("request ended", request_key=str(row.request.request_key), state=row.made.state)

    async def tell_late(self) -> None:
        """Look for late numbers for ever: once a second, or rarer when late means hours."""
        every_s = min(max(self._pending_after_s / 20, 0.1), MAX_LATE_LOOK_S)
        while True:
            try:
                told = LATE_BATCH
                while told == LATE_BATCH:
                    async with self._pool().acquire() as tx, tx.transaction():
                        writes = Writes()
                        outgoing = await store.mark_late(
                            tx,
                            writes,
                            wall_now() - timedelta(seconds=self._pending_after_s),
                            LATE_BATCH,
                            lambda at: self._office.at(at.timestamp()),
                        )
                        lanes = await stage(tx, outgoing, writes)
                    self._wake(lanes)
                    told = len(outgoing)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("late numbers not told yet", error=type(error).__name__)
            await asyncio.sleep(every_s)
