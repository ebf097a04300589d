"""What every service does alike: ready only when it is prepared, NULs refused in every address."""

from __future__ import annotations

import asyncio
import json

import httpx2
from fastapi import APIRouter

from deploy.local.ports import free_port
from shared.service import Service, build
from shared.settings import Settings
from tests.fixtures.databases import MakePool
from tests.fixtures.services import SEAL_KEYS, TOKENS
from tests.fixtures.waiting import wait_until


def settings(dsn: str) -> Settings:
    return Settings(
        service="intake",
        database=dsn,
        kafka=f"127.0.0.1:{free_port()}",
        seal_keys=SEAL_KEYS,
        secret="test-secret-for-tracking-of-32-by",
        tokens=json.dumps(TOKENS),
    )


async def test_it_is_not_ready_before_what_it_prepares_is_done(make_pool: MakePool) -> None:
    dsn, _ = await make_pool.with_dsn("shared", "services.intake")
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def prepare(_: Service) -> None:
        begun.set()
        await may_end.wait()

    app = build(settings(dsn), routers=lambda _: [], on_ready=[prepare])
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://service")
    async with app.router.lifespan_context(app), client:
        await asyncio.wait_for(begun.wait(), 20)
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        may_end.set()

        async def is_ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await wait_until(is_ready)


async def test_a_nul_in_an_address_is_refused_by_every_route_of_every_service(make_pool: MakePool) -> None:
    dsn, _ = await make_pool.with_dsn("shared", "services.intake")
    routes = APIRouter()

    @routes.get("/things/{thing}")
    async def get_thing(thing: str, agency: str = "") -> dict[str, str]:
        return {"thing": thing, "agency": agency}

    app = build(settings(dsn), routers=lambda _: [routes])
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://service")
    async with client:
        assert (await client.get("/things/one?agency=H44")).status_code == 200
        for address in ("/things/o%00ne", "/things/one?agency=%00", "/things/one?%00=x"):
            answer = await client.get(address)
            assert (answer.status_code, answer.json()["code"]) == (400, "nul"), address
