"""What idlookup shows of the registry. The stages themselves are workflow's to show."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram

from shared.metrics import WAIT_BUCKETS

from .breaker import STATES, Breaker
from .limiter import Window


class Meter:
    """The registry as seen from here, by kind."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
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

    def show(self, kind: str, window: Window, breaker: Breaker) -> None:
        window.free()
        self._inflight.labels(kind).set(window.standing)
        self._limit.labels(kind).set(int(window.limit))
        for state in STATES:
            self._breaker.labels(kind, state).set(breaker.state == state)
