"""Faults of a simulated outside system: it hangs, is down, answers late, or loses its answers.

Shared by the registry simulator and the SMS gateway stand-in. `/control` always answers.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, Protocol

import orjson
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HOLD_S = 30.0
"""Wall seconds for which a connection without an answer stays open."""
MAX_BODY_BYTES = 4 * 1024 * 1024
DROP = "hoso.drop"


class BadInput(Exception):
    """Answered as 400 (or `status`) with {code, detail}."""

    def __init__(self, code: str, detail: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.detail, self.status = code, detail, status


class FaultSettings(Protocol):
    """The settings that every simulated system has. `hang` is optional."""

    lost_answer_rate: float
    down: bool


def answer(body: Any, status: int = 200) -> Response:
    headers = {"Retry-After": "1"} if status == 503 else None
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


async def refuse(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, BadInput)
    return answer({"code": problem.code, "detail": problem.detail}, problem.status)


async def read_object(request: Request) -> dict[str, Any]:
    """The body as one JSON object. Raises BadInput."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadInput("too-large", f"The body is over {MAX_BODY_BYTES} bytes.", 413)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadInput("not-json", "The body is not JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise BadInput("not-an-object", "The body must be a JSON object.")
    return value


def change(settings: Any, wanted: dict[str, Any]) -> None:
    """Set the fields of `settings`, a dataclass of numbers and switches: all of `wanted` or none. Raises BadInput."""
    known = {field.name: type(getattr(settings, field.name)) for field in fields(settings)}
    checked: dict[str, float | bool] = {}
    for name, value in wanted.items():
        if name not in known:
            raise BadInput("unknown-setting", f"There is no setting {name!r}. Settings: {', '.join(known)}.")
        if known[name] is bool:
            if not isinstance(value, bool):
                raise BadInput("not-a-switch", f"{name} must be true or false.")
            checked[name] = value
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise BadInput("not-a-number", f"{name} must be a number of zero or more.")
        if name.endswith("_rate") and value > 1:
            raise BadInput("not-a-rate", f"{name} must be between 0 and 1.")
        checked[name] = float(value)
    for name, setting in checked.items():
        setattr(settings, name, setting)


def control(settings: Any, changed: Callable[[], None] = lambda: None) -> Callable[[Request], Any]:
    """Return the handler of GET and PUT /control. PUT changes the named settings; both answer with all settings."""

    async def handle(request: Request) -> Response:
        if request.method == "PUT":
            change(settings, await read_object(request))
            changed()
        return answer(asdict(settings))

    return handle


class Faulty:
    """ASGI middleware that applies the faults to every call except those to /control."""

    def __init__(
        self, app: ASGIApp, *, settings: FaultSettings, chance: random.Random, delay_s: Callable[[], float]
    ) -> None:
        """`delay_s` returns, for each call, the wall seconds before it is handled."""
        self._app, self._settings, self._chance, self._delay_s = app, settings, chance, delay_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/control"):
            await self._app(scope, receive, send)
        elif getattr(self._settings, "hang", False):
            await _hang(scope, receive)
        elif self._settings.down:
            await answer({"code": "down", "detail": "The system is down."}, 503)(scope, receive, send)
        else:
            delay_s = self._delay_s()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            if self._chance.random() >= self._settings.lost_answer_rate:
                await self._app(scope, receive, send)
                return
            await self._app(scope, receive, _discard)
            await _hang(scope, receive)


async def _discard(_: Message) -> None:
    """Send nothing: the answer is lost."""


async def _hang(scope: Scope, receive: Receive) -> None:
    """Keep the connection open until the caller gives up or HOLD_S have passed, then abort it."""
    try:
        async with asyncio.timeout(HOLD_S):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        scope["extensions"][DROP]()
        await receive()


class DroppableHttp(HttpToolsProtocol):
    """HTTP whose application can abort the connection. Without it, uvicorn sends 500 instead of a lost answer."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
        extensions[DROP] = self.transport.abort


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Calls without an answer are aborted one second later."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=DroppableHttp,
        loop="uvloop",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
