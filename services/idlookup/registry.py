"""The population registry over HTTP, in batches: send requests, ask after them by key. Says what is known, never raises."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import httpx2
from prometheus_client import CollectorRegistry, Gauge, Histogram

from shared.metrics import MACHINE_BUCKETS

from .breaker import STATES, Breaker
from .limiter import AdaptiveLimit
from .rules import Answer

UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class RegistryMetrics:
    """The registry as seen from here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "idlookup_request_duration_seconds",
            "One call",
            ["kind", "outcome"],
            buckets=MACHINE_BUCKETS,
            registry=registry,
        )
        self.inflight = Gauge("idlookup_inflight", "Calls in flight", ["kind"], registry=registry)
        self.limit = Gauge("idlookup_concurrency_limit", "Calls allowed in flight", ["kind"], registry=registry)
        self.breaker = Gauge("idlookup_breaker_state", "1 for the state it is in", ["kind", "state"], registry=registry)


class Registry:
    """Calls of one kind (`issue` or `verify`), with their own limit and breaker."""

    def __init__(self, client: httpx2.AsyncClient, kind: str, *, most_calls: int, metrics: RegistryMetrics) -> None:
        self.kind = kind
        self.limit = AdaptiveLimit(most_calls)
        self.breaker = Breaker()
        self._client, self._metrics = client, metrics

    async def send(self, bodies: Sequence[dict[str, Any]]) -> dict[str, Answer]:
        """By key: `sent`, `technical-error`, `rejected`, `lost` (it may have arrived) or `unreachable`."""
        answer, state = await self._call("POST", "/v1/requests/batch", json={"items": list(bodies)})
        if answer is None:
            return {body["key"]: Answer(state) for body in bodies}
        known = {item["key"]: item for item in answer["items"]}
        return {body["key"]: _accepted(known.get(body["key"])) for body in bodies}

    async def ask(self, keys: Sequence[str]) -> dict[str, Answer]:
        """By key: the registry's word, or `lost`: nothing is known, and nothing was changed by asking."""
        answer, _ = await self._call("GET", "/v1/requests", params={"keys": ",".join(keys)})
        if answer is None:
            return {key: Answer("lost") for key in keys}
        known = {item["key"]: item for item in answer["items"]}
        return {key: _told(known.get(key)) for key in keys}

    async def _call(self, method: str, path: str, **more: Any) -> tuple[dict[str, Any] | None, str]:
        """(JSON, "") or (None, `lost` or `unreachable`)."""
        began = time.perf_counter()
        outcome, state, found = "ok", "", None
        try:
            answer = await self._client.request(method, path, **more)
            if answer.status_code in (200, 202):
                found = answer.json()
                found["items"]
            else:
                outcome, state = f"http_{answer.status_code // 100}xx", "lost"
        except UNREACHABLE:
            outcome = state = "unreachable"
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            found, state = None, "lost"
            outcome = "timeout" if isinstance(error, httpx2.TimeoutException) else "lost"
        self._metrics.duration.labels(self.kind, outcome).observe(time.perf_counter() - began)
        if found is None:
            self.breaker.failed()
            self.limit.lost()
        else:
            self.breaker.succeeded()
            self.limit.answered()
        return found, state

    def show(self) -> None:
        """Set the gauges."""
        self._metrics.inflight.labels(self.kind).set(self.limit.in_flight)
        self._metrics.limit.labels(self.kind).set(int(self.limit.limit))
        for state in STATES:
            self._metrics.breaker.labels(self.kind, state).set(self.breaker.state == state)


def _accepted(item: dict[str, Any] | None) -> Answer:
    if item is None:
        return Answer("lost")
    if "request_id" in item:
        return Answer("sent")
    return Answer("rejected", reason=str(item.get("code", "not-accepted"))[:80])


def _told(item: dict[str, Any] | None) -> Answer:
    if item is None:
        return Answer("lost")
    number = item.get("number")
    return Answer(str(item.get("state")), str(number) if number is not None else None, str(item.get("reason", ""))[:80])
