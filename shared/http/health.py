"""`/livez`, `/readyz` and `/metrics`, the same for every service; `HEAD` is answered like `GET`, without a body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import ConfigDict
from starlette.responses import PlainTextResponse, Response

from shared.http.body import dumps
from shared.http.models import HttpModel

RETRY_AFTER_S = 2
METRICS_FORMATS = ("text/plain", "application/openmetrics-text")


class Alive(HttpModel):
    """The process answers."""

    status: Literal["alive"]


class Readiness(HttpModel):
    """Whether requests can be answered. Services add fields of their own, e.g. `broker`; they do not decide it."""

    model_config = ConfigDict(extra="allow")
    status: Literal["ready", "unavailable", "stopping"]
    """`unavailable`: the database does not answer or is not migrated. `stopping`: a signal to stop has come."""
    service: str


class ReadinessReport(NamedTuple):
    """`fields`: those of `Readiness`."""

    ready: bool
    fields: dict[str, Any]


def router(registry: CollectorRegistry, readiness: Callable[[], Awaitable[ReadinessReport]]) -> APIRouter:
    routes = APIRouter(tags=["health"])

    async def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    async def readyz() -> Response:
        """Ready: the database answers and its migrations are done. Otherwise 503, with the same fields."""
        report = await readiness()
        headers = {} if report.ready else {"Retry-After": str(RETRY_AFTER_S)}
        return Response(dumps(report.fields), 200 if report.ready else 503, headers, "application/json")

    async def metrics(request: Request) -> Response:
        """All metrics in one of Prometheus' text formats, as the header `Accept` asks."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=media_type)

    routes.add_api_route("/livez", livez, methods=["GET"], response_model=Alive)
    routes.add_api_route(
        "/readyz",
        readyz,
        methods=["GET"],
        responses={200: {"model": Readiness}, 503: {"model": Readiness, "description": "Not ready"}},
    )
    routes.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        response_class=PlainTextResponse,
        responses={200: {"content": {kind: {"schema": {"type": "string"}} for kind in METRICS_FORMATS}}},
    )
    for path, endpoint in (("/livez", livez), ("/readyz", readyz), ("/metrics", metrics)):
        routes.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    return routes
