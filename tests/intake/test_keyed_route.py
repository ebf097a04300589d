"""A keyed route reads its key without FastAPI, and its answers are the same as with FastAPI."""

from __future__ import annotations

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import PlainTextResponse, Response

from shared.http import problems
from shared.http.idempotency import Key, KeyedRoute


async def endpoint(request: Request, key: Key) -> Response:
    return PlainTextResponse(f"{request.method} {key}", 201)


def client() -> httpx2.AsyncClient:
    app, routes = FastAPI(), APIRouter(prefix="/v1")
    for path, kind in (("/quick", KeyedRoute), ("/thorough", APIRoute)):
        routes.add_api_route(path, endpoint, methods=["POST"], route_class_override=kind)
    problems.install(app)
    app.include_router(routes)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://it")


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ([b"k"], 201),
        ([b"!" * 200], 201),
        ([b"first", b"second"], 201),
        ([], 400),
        ([b""], 400),
        ([b"k" * 201], 400),
        ([b"a b"], 400),
        ([b"a\t"], 400),
        ([b"\xe1\xbb\x85"], 400),
        ([b"\x7f"], 400),
        ([b"", b"second"], 400),
    ],
)
async def test_every_key_has_the_answer_that_fastapi_gives(keys: list[bytes], status: int) -> None:
    async with client() as asking:
        headers = [(b"Idempotency-Key", key) for key in keys]
        quick, thorough = [await asking.post(f"/v1/{path}", headers=headers) for path in ("quick", "thorough")]
    assert (quick.status_code, quick.text) == (thorough.status_code, thorough.text)
    assert quick.status_code == status


async def test_a_good_key_is_not_read_by_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(**_: object) -> None:
        raise AssertionError("parameters were solved")

    monkeypatch.setattr("fastapi.routing.solve_dependencies", never)
    async with client() as asking:
        assert (await asking.post("/v1/quick", headers={"Idempotency-Key": "k"})).text == "POST k"
