"""The registry's HTTP API: request a number or a check, read the answer, control the simulator's faults."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.registry_simulator.book import Book
from deploy.registry_simulator.faults import BadInput, Faulty, answer, control, read_object, refuse
from deploy.registry_simulator.registry import Registry

MAX_BATCH = 1000
"""Maximum number of requests or keys in one call."""
HTTP_SHARE, MAX_HTTP_S = 0.05, 0.2
"""An HTTP answer takes this share of a request's latency, at most MAX_HTTP_S wall seconds."""


def build(seed: int = 1, book: Book | None = None) -> Starlette:
    """Build the application. It serves its queue between start-up and shutdown."""
    registry = Registry(seed, book)
    settings, chance = registry.settings, registry.chance

    async def send(request: Request) -> Response:
        body = await read_object(request)
        if registry.refuse_at_once():
            return _busy()
        accepted = registry.accept(request.headers.get("idempotency-key", ""), body)
        return answer({"request_id": accepted.request_id, "key": accepted.key}, 202)

    async def send_batch(request: Request) -> Response:
        items = (await read_object(request)).get("items")
        if not isinstance(items, list) or not 0 < len(items) <= MAX_BATCH:
            raise BadInput("items-missing", f"items is a list of 1 to {MAX_BATCH} requests.")
        if registry.refuse_at_once():
            return _busy()
        return answer({"items": [_accept_one(registry, item) for item in items]}, 202)

    async def find(request: Request) -> Response:
        return answer(registry.find_by_id(request.path_params["request_id"]))

    async def find_by_keys(request: Request) -> Response:
        if (key := request.query_params.get("key")) is not None:
            return answer(registry.find_by_key(key))
        keys = [key for key in request.query_params.get("keys", "").split(",") if key]
        if not 0 < len(keys) <= MAX_BATCH:
            raise BadInput(
                "keys-missing", f"Ask with key=, or with keys= and 1 to {MAX_BATCH} keys separated by commas."
            )
        return answer({"items": [registry.find_by_key(key) for key in keys]})

    async def stats(_: Request) -> Response:
        return answer(registry.stats())

    @contextlib.asynccontextmanager
    async def serving(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(registry.run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def http_delay_s() -> float:
        return min(MAX_HTTP_S, HTTP_SHARE * settings.latency_s(chance.gauss(0, 1)))

    return Starlette(
        routes=[
            Route("/v1/requests/batch", send_batch, methods=["POST"]),
            Route("/v1/requests", send, methods=["POST"]),
            Route("/v1/requests", find_by_keys, methods=["GET"]),
            Route("/v1/requests/{request_id}", find, methods=["GET"]),
            Route("/control", control(settings, registry.on_settings_changed), methods=["GET", "PUT"]),
            Route("/control/stats", stats, methods=["GET"]),
        ],
        middleware=[Middleware(Faulty, settings=settings, chance=chance, delay_s=http_delay_s)],
        exception_handlers={BadInput: refuse},
        lifespan=serving,
    )


def _accept_one(registry: Registry, item: Any) -> dict[str, Any]:
    """Return one item's answer. A bad item gets a code instead of a request_id; the others are not affected."""
    if not isinstance(item, dict):
        return {"key": None, "code": "not-an-object"}
    try:
        accepted = registry.accept(item.get("key", ""), item)
    except BadInput as problem:
        return {"key": item.get("key"), "code": problem.code, "detail": problem.detail}
    return {"key": accepted.key, "request_id": accepted.request_id}


def _busy() -> Response:
    return answer({"code": "busy", "detail": "Try again later."}, 503)
