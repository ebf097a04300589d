"""The Prometheus metrics of a service. Gauges are set in the background, so that a scrape never asks the database."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

MACHINE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
HUMAN_BUCKETS = (60, 300, 900, 1800, 3600, 7200, 14400, 28800, 57600, 86400, 144000, 288000)
WAIT_BUCKETS = tuple(sorted({*MACHINE_BUCKETS, *HUMAN_BUCKETS}))
"""Seconds of wall time for machine stages, of working time for human ones; 28,800 is a working day of eight hours."""

disable_created_metrics()  # type: ignore[no-untyped-call]


def observe_all(histogram: Histogram, values: Iterable[float]) -> None:
    """`histogram.observe` for many values at once, with one lock per bucket instead of two per value.

    Uses private attributes of prometheus_client, read in 0.26.0; `tests/shared/test_metrics.py` fails when they change.
    """
    counts: dict[int, int] = {}
    bounds, total = histogram._upper_bounds, 0.0
    for value in values:
        total += value
        at = bisect_left(bounds, value)
        counts[at] = counts.get(at, 0) + 1
    for at, count in counts.items():
        histogram._buckets[at].inc(count)
    histogram._sum.inc(total)


class DeliveryMetrics:
    """The metrics of the delivery core, the same in every service."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        self.repeated = Counter(
            "events_repeated_total", "Events that came again and had no second effect", ["consumer"], registry=registry
        ).labels(service)
        self.parked = Counter(
            "events_parked_total", "Records put aside for a person", ["topic", "reason"], registry=registry
        )
        self.held = Gauge("events_held", "Events waiting for an earlier one", ["topic"], registry=registry)
        self.brake = Gauge(
            "consumer_brake", "1 while consuming is stopped because too much would be parked", registry=registry
        )
        self.batch_seconds = Histogram(
            "consumer_batch_seconds", "One batch's transaction", buckets=MACHINE_BUCKETS, registry=registry
        )
        self.batch_events = Histogram(
            "consumer_batch_events",
            "Events in one batch",
            buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000),
            registry=registry,
        )
        self.pending = Gauge(
            "outbox_pending", "Events committed and not yet acknowledged by the broker", registry=registry
        )
        self.oldest_pending = Gauge(
            "outbox_oldest_pending_timestamp_seconds",
            "When the oldest unsent event was recorded; now when none",
            registry=registry,
        )
        self.published = Counter("outbox_published_total", "Events acknowledged by the broker", registry=registry)
        self.refills = Counter(
            "outbox_refills_total",
            "Times all events were sent again because the broker had lost some",
            registry=registry,
        )
        self.lag = Gauge(
            "kafka_consumer_lag_records",
            "Records behind the end of the partition",
            ["topic", "partition"],
            registry=registry,
        )
        self.oldest_unprocessed = Gauge(
            "kafka_consumer_oldest_unprocessed_timestamp_seconds",
            "Record time of the oldest record fetched or waiting; now when none",
            ["topic"],
            registry=registry,
        )
        self.connected = Gauge("broker_connected", "1 while the broker answers", registry=registry)
        self.heartbeat = Gauge(
            "dossier_heartbeat_seen_timestamp_seconds",
            "When a heartbeat last came through",
            ["stage"],
            registry=registry,
        )
        self._beats: dict[str, float] = {}

    def beat(self, stage: str, sent_at: datetime) -> None:
        """Count a heartbeat of a stage. A refilled broker brings old heartbeats again, so the latest one counts."""
        latest = self._beats[stage] = max(sent_at.timestamp(), self._beats.get(stage, 0.0))
        self.heartbeat.labels(stage).set(latest)


class StageMetrics:
    """The metrics of a service's stages, under the same names in all services."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["stage"], registry=registry)

        self.entered = Counter(
            "dossier_stage_entered_total", "Entries", ["stage", "procedure_group"], registry=registry
        )
        self.left = Counter("dossier_stage_left_total", "Departures", ["stage", "outcome"], registry=registry)
        self.waiting = gauge("dossier_stage_waiting", "Standing in the stage, nobody at work on it")
        self.in_progress = gauge("dossier_stage_in_progress", "Being worked on")
        self.oldest_timestamp = gauge(
            "dossier_stage_oldest_waiting_timestamp_seconds", "When the oldest came; now when the stage is empty"
        )
        self.oldest = gauge(
            "dossier_stage_oldest_waiting_seconds",
            "Age of the oldest: working time for human stages, wall time for machine stages",
        )
        self.wait = Histogram(
            "dossier_stage_wait_seconds",
            "From entering to being taken up",
            ["stage", "procedure_group"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.service = Histogram(
            "dossier_stage_service_seconds",
            "From being taken up to leaving",
            ["stage"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.target = gauge("dossier_stage_target_seconds", "What the stage's age is measured against")
        self.busy = Counter("dossier_stage_busy_seconds_total", "Seconds of work done", ["stage"], registry=registry)
        self.workers = gauge("dossier_stage_workers", "Hands or callers at this stage")
        self.overdue = gauge("dossier_overdue", "Standing here after their due time")
        self.due_soon = gauge("dossier_due_soon", "Standing here, due within one working day")
