"""What idlookup shows of the registry, and of its two stages what it alone knows: who is at work on them.

How many dossiers stand there, and since when, is workflow's to show. Where both show a gauge (workflow counts officers
at work on a doubtful answer), a stage's figure is the larger one: `max by (stage)`. Service times and seconds of work
of these stages come from here alone.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram

from services.idlookup.circuit_breaker import STATES, CircuitBreaker
from services.idlookup.window import Window
from shared.telemetry.metrics import WAIT_BUCKETS, StageMetrics

STAGE = {"issue": "id_number", "verify": "identity_check"}


class RegistryMetrics:
    """The registry as seen from here, by kind."""

    def __init__(self, registry: CollectorRegistry, stages: StageMetrics) -> None:
        self._stages = stages
        self._counted = dict.fromkeys(STAGE, 0.0)
        """Seconds of work already shown, by kind."""
        self._duration = Histogram(
            "idlookup_request_duration_seconds",
            "From the first call about a request to the registry's answer",
            ["kind", "outcome"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self._inflight = Gauge(
            "idlookup_inflight", "Requests standing unanswered at the registry", ["kind"], registry=registry
        )
        self._limit = Gauge("idlookup_concurrency_limit", "How many may", ["kind"], registry=registry)
        self._breaker = Gauge(
            "idlookup_breaker_state", "1 for the state it is in", ["kind", "state"], registry=registry
        )

    def answered(self, kind: str, outcome: str, seconds: float) -> None:
        """The registry has come to an end with a request, so long after the first call about it."""
        self._duration.labels(kind, outcome).observe(seconds)
        self._stages.service.labels(STAGE[kind]).observe(seconds)

    def show(self, kind: str, window: Window, breaker: CircuitBreaker) -> None:
        window.free()
        self._inflight.labels(kind).set(window.standing)
        self._limit.labels(kind).set(int(window.limit))
        for state in STATES:
            self._breaker.labels(kind, state).set(breaker.state == state)
        stage = STAGE[kind]
        self._stages.in_progress.labels(stage).set(window.standing)
        # While the breaker is open nobody calls; then one goes ahead to see.
        workers = {"closed": int(window.limit), "half_open": 1, "open": 0}[breaker.state]
        self._stages.workers.labels(stage).set(workers)
        # A window is new after a restart of the callers, and begins at nought.
        before = self._counted[kind] if self._counted[kind] <= window.stood_s else 0.0
        self._stages.busy.labels(stage).inc(window.stood_s - before)
        self._counted[kind] = window.stood_s
