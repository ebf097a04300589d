"""What notify counts of its own stage: rows that came, were taken up and left, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from shared.telemetry.metrics import StageMetrics, observe_all

STAGE = "notify"
GROUP = "all"
"""A notice knows no procedure, so its group is always this one."""


class NoticeMetrics:
    """Counts ledger rows: a notice that falls back to another channel leaves as failed and enters again."""

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

    def enter(self, rows: int) -> None:
        self._entered.inc(rows)

    def take_up(self, waits_s: Sequence[float]) -> None:
        observe_all(self._wait, [max(wait, 0.0) for wait in waits_s])

    def leave_at_once(self, outcome: str, rows: int) -> None:
        """Rows that needed nobody's hand."""
        self._left[outcome].inc(rows)
        observe_all(self._service, [0.0] * rows)

    def leave(self, outcome: str, taken_at: datetime | None = None) -> None:
        """`outcome`: sent, failed or listed. `taken_at`: None when it never waited for a channel."""
        self._left[outcome].inc()
        self._service.observe(max(time.time() - taken_at.timestamp(), 0.0) if taken_at else 0.0)

    def work(self, seconds: float) -> None:
        self._busy.inc(seconds)

    def show(self, *, waiting: int, in_progress: int, oldest_at: float | None, workers: int) -> None:
        """Set the gauges; `oldest_at` is seconds since 1970, or None when nothing stands here."""
        now = time.time()
        self._waiting.set(waiting)
        self._in_progress.set(in_progress)
        self._oldest_timestamp.set(oldest_at or now)
        self._oldest.set(max(now - oldest_at, 0.0) if oldest_at else 0.0)
        self._workers.set(workers)
