"""The metrics of the stage `notify`: notices that entered, were taken and left, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from shared.telemetry.metrics import StageMetrics, observe_all

STAGE = "notify"
GROUP = "all"
"""A notice does not know its dossier's procedure, so the label `procedure_group` always has this value."""


class NoticeMetrics:
    """Counts rows of the ledger: a notice that goes to the next channel leaves as failed and enters again."""

    def __init__(self, metrics: StageMetrics, *, target_s: float) -> None:
        self._entered = metrics.entered.labels(STAGE, GROUP)
        self._left = {outcome: metrics.left.labels(STAGE, outcome) for outcome in ("sent", "failed", "listed")}
        self._waiting = metrics.waiting.labels(STAGE)
        self._in_progress = metrics.in_progress.labels(STAGE)
        self._oldest_timestamp = metrics.oldest_timestamp.labels(STAGE)
        self._oldest = metrics.oldest.labels(STAGE)
        self._wait = metrics.wait.labels(STAGE, GROUP)
        self._service = metrics.service.labels(STAGE)
        self._busy = metrics.busy.labels(STAGE)
        self._workers = metrics.workers.labels(STAGE)
        metrics.target.labels(STAGE).set(target_s)

    def add_entered(self, rows: int) -> None:
        self._entered.inc(rows)

    def add_waits(self, waits_s: Sequence[float]) -> None:
        """Wall seconds that rows waited until they were first taken."""
        observe_all(self._wait, [max(wait_s, 0.0) for wait_s in waits_s])

    def add_listed(self, rows: int) -> None:
        """Rows that went on the call list; this takes no time."""
        self._left["listed"].inc(rows)
        observe_all(self._service, [0.0] * rows)

    def add_settled(self, outcome: str, taken_at: datetime | None) -> None:
        """A row that a channel ended as sent or failed, first taken at `taken_at`."""
        self._left[outcome].inc()
        self._service.observe(max(time.time() - taken_at.timestamp(), 0.0) if taken_at else 0.0)

    def add_work(self, seconds: float) -> None:
        """Wall seconds that one try took."""
        self._busy.inc(seconds)

    def report(self, *, waiting: int, in_progress: int, oldest_at: float | None, workers: int) -> None:
        """Set the gauges; `oldest_at` is in seconds since 1970, or None when no row is open."""
        now = time.time()
        self._waiting.set(waiting)
        self._in_progress.set(in_progress)
        self._oldest_timestamp.set(oldest_at or now)
        self._oldest.set(max(now - oldest_at, 0.0) if oldest_at else 0.0)
        self._workers.set(workers)
