"""The gateway's HTTP API: send a message, ask whether one was sent, control the faults.

The gateway recognises a repeated message by its Idempotency-Key only, and counts messages per reference. A client that
sends the same reference without the key, or with another key, sends it twice, and `sent_twice` shows it.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from uuid import uuid4

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.registry_simulator.book import Book
from deploy.registry_simulator.faults import BadInput, Faulty, answer, control, read_object, refuse

CHANNELS = ("sms", "zalo")


@dataclass(slots=True)
class Settings:
    """The settings of PUT /control. `latency_s` in wall seconds; rates from 0 to 1."""

    error_rate: float = 0.0
    latency_s: float = 0.0
    lost_answer_rate: float = 0.0
    hang: bool = False
    down: bool = False


def build(seed: int = 1, book: Book | None = None) -> Starlette:
    """Build the application. It keeps no texts and no telephone numbers."""
    settings, chance = Settings(), random.Random(seed)
    by_key: dict[str, str] = {}
    by_reference: dict[str, str] = {}
    sent: Counter[str] = Counter()
    written = book or Book(None)

    def remember(key: str, reference: str, message_id: str) -> None:
        by_reference[reference] = message_id
        sent[reference] += 1
        if key:
            by_key[key] = message_id

    for noted in written.read():
        remember(**noted)

    async def send(request: Request) -> Response:
        body = await read_object(request)
        for name in ("to", "channel", "text", "reference"):
            if not isinstance(body.get(name), str) or not body[name].strip():
                raise BadInput(f"{name}-missing", f"A message needs {name}.")
        if body["channel"] not in CHANNELS:
            raise BadInput("channel-unknown", f"channel must be one of {', '.join(CHANNELS)}.")
        key, reference = request.headers.get("idempotency-key", ""), body["reference"]
        if chance.random() < settings.error_rate:
            return answer({"code": "busy", "detail": "Try again later."}, 503)
        message_id = by_key.get(key, "")
        if not message_id:
            message_id = str(uuid4())
            written.note(key=key, reference=reference, message_id=message_id)
            remember(key, reference, message_id)
        return answer({"message_id": message_id, "reference": reference, "status": "sent"}, 202)

    async def find(request: Request) -> Response:
        reference = request.query_params.get("reference", "")
        if not reference:
            raise BadInput("reference-missing", "Ask with reference=.")
        if reference not in by_reference:
            return answer({"reference": reference, "status": "unknown"})
        return answer({"message_id": by_reference[reference], "reference": reference, "status": "sent"})

    async def stats(_: Request) -> Response:
        messages = sent.total()
        return answer({"messages": messages, "references": len(sent), "sent_twice": messages - len(sent)})

    return Starlette(
        routes=[
            Route("/messages", send, methods=["POST"]),
            Route("/messages", find, methods=["GET"]),
            Route("/control", control(settings), methods=["GET", "PUT"]),
            Route("/control/stats", stats, methods=["GET"]),
        ],
        middleware=[Middleware(Faulty, settings=settings, chance=chance, delay_s=lambda: settings.latency_s)],
        exception_handlers={BadInput: refuse},
    )
