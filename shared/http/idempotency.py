"""Idempotency keys: their form, and a route that reads them quickly."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

MAX_KEY = 200
"""Characters of a key."""
Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY,
        pattern=r"^[\x21-\x7e]+$",
        description="Chosen by the caller, one for each request. The same key and body again has no second effect.",
    ),
]
VALID_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY}}}")


class KeyedRoute(APIRoute):
    """A route whose endpoint takes the request and its key, and nothing else.

    A valid key goes straight to the endpoint. Any other request goes through FastAPI, which refuses it: solving
    parameters and dependencies is too slow for the busiest route.
    """

    admit: Callable[[Request], object] = staticmethod(lambda _: None)
    """Called before the key is read. Raises Problem 401 or 403."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, handle_slowly = self.endpoint, super().get_route_handler()

        async def handle(request: Request) -> Response:
            self.admit(request)
            key = request.headers.get("idempotency-key", "")
            if VALID_KEY.fullmatch(key) is None:
                return await handle_slowly(request)
            answer: Response = await endpoint(request, key)
            return answer

        return handle
