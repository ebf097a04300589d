"""What workflow counts beside the stages: dossiers that are only recorded, and the notices that it asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge

from shared.telemetry.metrics import StageMetrics


class NoticeCount(NamedTuple):
    """How many notices were waiting at a wall time, and how many this process had asked for by then."""

    at: datetime
    waiting: int
    wanted: int


class WorkflowMetrics:
    """The metrics of this process. `stages`: the stages that dossiers are in."""

    def __init__(self, registry: CollectorRegistry, stages: StageMetrics) -> None:
        self.stages = stages
        self.notices_wanted = 0
        """Notices asked for since this process started."""
        self.notice_counts: deque[NoticeCount] = deque()
        """The counts within the window of the trends, oldest first."""
        self._recorded_only = Gauge(
            "dossier_recorded_only",
            "Dossiers recorded and not received, because their procedure receives none now",
            ["procedure_group"],
            registry=registry,
        )
        self._groups_seen: set[str] = set()

    def show_recorded_only(self, by_group: Mapping[str, int]) -> None:
        """Set the gauge. Groups that are no longer in `by_group` go to 0."""
        self._groups_seen |= by_group.keys()
        for group in self._groups_seen:
            self._recorded_only.labels(group).set(by_group.get(group, 0))
