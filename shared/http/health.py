"""`/livez`, `/readyz` and `/metrics`, the same for every service; `HEAD` is answered like `GET`, without a body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from shared.http.body import dumps

METHODS = ["GET", "HEAD"]
RETRY_AFTER_S = 2


class Alive(BaseModel):
    status: Literal["alive"]


class Readiness(BaseModel):
    """Whether requests can be answered. Services add fields, e.g. `broker`, which says nothing about readiness."""

    model_config = ConfigDict(extra="allow")
    status: Literal["ready", "unavailable", "stopping"]
    service: str


def router(registry: CollectorRegistry, readiness: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]) -> APIRouter:
    """`readiness()` returns (ready, the fields of `Readiness`)."""
    routes = APIRouter(tags=["health"])

    async def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    async def readyz() -> Response:
        """Ready: the database answers and its migrations are done. 503 with the same body otherwise."""
        ready, fields = await readiness()
        headers = {} if ready else {"Retry-After": str(RETRY_AFTER_S)}
        return Response(dumps(fields), 200 if ready else 503, headers, "application/json")

    async def metrics(request: Request) -> Response:
        """Prometheus' text formats, as `Accept` asks."""
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
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    for path, endpoint in (("/livez", livez), ("/readyz", readyz), ("/metrics", metrics)):
        routes.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    return routes
