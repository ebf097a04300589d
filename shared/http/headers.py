"""Response headers that several routes set."""

from __future__ import annotations

from starlette.responses import Response


async def no_store(response: Response) -> None:
    """A route dependency: browsers and proxies keep no copy. Async, because FastAPI runs sync ones in a thread."""
    response.headers["Cache-Control"] = "no-store"
