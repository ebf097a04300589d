"""idlookup's metrics: the registry as seen from here, and the work of the stages id_number and identity_check.

workflow reports how many dossiers wait in these stages and since when; service times and seconds of work come from here
alone. Where both report a gauge (workflow counts officers at work on a doubtful answer), the stage's figure is the
larger one: `max by (stage)`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram

from services.idlookup.circuit_breaker import STATES, CircuitBreaker
from services.idlookup.window import Window
from shared.telemetry.metrics import WAIT_BUCKETS, StageMetrics

STAGE = {"issue": "id_number", "verify": "identity_check"}


class RegistryMetrics:
    """Calls to the registry, by kind."""

    def __init__(self, metrics_registry: CollectorRegistry, stages: StageMetrics) -> None:
        self._stages = stages
        self._reported_busy_s = dict.fromkeys(STAGE, 0.0)
        """`Window.busy_s` at the last report, by kind."""
        self._duration = Histogram(
            "idlookup_request_duration_seconds",
            "From the first call about a request to the registry's answer",
            ["kind", "outcome"],
            buckets=WAIT_BUCKETS,
            registry=metrics_registry,
        )
        self._inflight = Gauge(
            "idlookup_inflight", "Requests without an answer at the registry", ["kind"], registry=metrics_registry
        )
        self._limit = Gauge(
            "idlookup_concurrency_limit",
            "How many requests may be without an answer at the registry",
            ["kind"],
            registry=metrics_registry,
        )
        self._breaker = Gauge(
            "idlookup_breaker_state",
            "1 for the present state of the circuit breaker",
            ["kind", "state"],
            registry=metrics_registry,
        )

    def answered(self, kind: str, outcome: str, seconds: float) -> None:
        """A request ended, `seconds` after the first call about it; `outcome` is its state."""
        self._duration.labels(kind, outcome).observe(seconds)
        self._stages.service.labels(STAGE[kind]).observe(seconds)

    def report(self, kind: str, window: Window, breaker: CircuitBreaker) -> None:
        """Set the gauges of a kind, and count the seconds of work since the last report."""
        window.free()  # it stops counting stale requests
        self._inflight.labels(kind).set(window.in_flight)
        self._limit.labels(kind).set(int(window.limit))
        for state in STATES:
            self._breaker.labels(kind, state).set(breaker.state == state)
        stage = STAGE[kind]
        self._stages.in_progress.labels(stage).set(window.in_flight)
        workers = {"closed": int(window.limit), "half_open": 1, "open": 0}[breaker.state]
        self._stages.workers.labels(stage).set(workers)
        # When `call_registry` starts again its windows are new, and their sums begin at 0.
        reported_s = self._reported_busy_s[kind] if self._reported_busy_s[kind] <= window.busy_s else 0.0
        self._stages.busy.labels(stage).inc(window.busy_s - reported_s)
        self._reported_busy_s[kind] = window.busy_s
