"""Idempotency keys: their shape, and a route that is quick about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

MOST = 200
Key = Annotated[str, Header(alias="Idempotency-Key", min_length=1, max_length=MOST, pattern=r"^[\x21-\x7e]+$")]
GOOD = re.compile(rf"[\x21-\x7e]{{1,{MOST}}}")


class KeyedRoute(APIRoute):
    """A route whose endpoint takes the request and its key, nothing else.

    FastAPI reads the key only when there is something to complain about, and complains in its own words: its solving of
    parameters and dependencies cost as much as reading the body does.
    """

    admit: Callable[[Request], object] = staticmethod(lambda _: None)
    """Raises Problem 401 or 403: asked first, whatever the key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, thorough = self.endpoint, super().get_route_handler()

        async def handle(request: Request) -> Response:
            self.admit(request)
            key = request.headers.get("idempotency-key", "")
            if GOOD.fullmatch(key) is None:
                return await thorough(request)
            answer: Response = await endpoint(request, key)
            return answer

        return handle
