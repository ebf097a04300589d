"""What every service does alike: readiness, health, background tasks, addresses."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from functools import partial

import httpx2
import pytest
from fastapi import APIRouter

from shared.service import Part, Service, create_app
from shared.settings import ServiceSettings
from tests.fixtures.databases import MakePool
from tests.fixtures.services import TOKENS
from tests.fixtures.waiting import wait_until


def service_on(dsn: str) -> Service:
    """A service with a database and nothing else: no Kafka, no routes of its own."""
    return Service(ServiceSettings(service="intake", database=dsn, tokens=json.dumps(TOKENS)))


async def test_it_is_not_ready_before_what_it_prepares_is_done(make_pool: MakePool) -> None:
    dsn, _ = await make_pool.with_dsn("shared", "services.intake")
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def prepare() -> None:
        begun.set()
        await may_end.wait()

    app = create_app(service_on(dsn), Part(on_ready=[prepare], migrations=["shared"]))
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


async def test_a_task_that_fails_is_logged_by_its_name_without_its_arguments(
    make_pool: MakePool, capsys: pytest.CaptureFixture[str]
) -> None:
    dsn, _ = await make_pool.with_dsn("shared", "services.intake")
    tried: list[str] = []

    async def prepare(key: str) -> None:
        tried.append(key)
        if len(tried) == 1:
            raise TimeoutError

    async def send_letters(key: str) -> None:
        raise ValueError

    part = Part(
        on_ready=[partial(prepare, "a key nobody may see")],
        background=[partial(send_letters, "a key nobody may see")],
        migrations=["shared"],
    )
    app = create_app(service_on(dsn), part)
    logs = ""

    def have_both_failed() -> bool:
        nonlocal logs
        logs += capsys.readouterr().out
        return "prepare" in logs and "send_letters" in logs

    async with app.router.lifespan_context(app):
        await wait_until(have_both_failed)
    assert "nobody may see" not in logs


async def test_a_nul_in_an_address_is_refused_by_every_route_of_every_service(make_pool: MakePool) -> None:
    dsn, _ = await make_pool.with_dsn("shared", "services.intake")
    routes = APIRouter()

    @routes.get("/things/{thing}")
    async def get_thing(thing: str, agency: str = "") -> dict[str, str]:
        return {"thing": thing, "agency": agency}

    app = create_app(service_on(dsn), Part(routers=[routes], migrations=["shared"]))
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://service")
    async with client:
        assert (await client.get("/things/one?agency=H44")).status_code == 200
        for address in ("/things/o%00ne", "/things/one?agency=%00", "/things/one?%00=x"):
            answer = await client.get(address)
            assert (answer.status_code, answer.json()["code"]) == (400, "nul"), address


def test_a_service_without_kafka_loads_neither_faststream_nor_aiokafka() -> None:
    program = "import sys, shared.service; print(sorted({'faststream', 'aiokafka'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


async def test_health_answers_head_like_get_without_a_body_and_no_address_is_redirected(make_pool: MakePool) -> None:
    dsn, _ = await make_pool.with_dsn("shared", "services.intake")
    app = create_app(service_on(dsn), Part(migrations=["shared"]))
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://service")
    async with app.router.lifespan_context(app), client:

        async def is_ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await wait_until(is_ready)
        for path in ("/livez", "/readyz", "/metrics"):
            asked, headed = await client.get(path), await client.head(path)
            assert (headed.status_code, headed.content) == (200, b"")
            assert headed.headers["content-type"] == asked.headers["content-type"]
            slashed = await client.get(f"{path}/")
            assert (slashed.status_code, slashed.json()["code"]) == (404, "not-found")


async def test_a_background_task_that_ends_or_raises_is_started_again(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn, _ = await make_pool.with_dsn("shared", "services.intake")
    starts: list[int] = []
    ends: list[BaseException | None] = [KeyError("a bug"), TimeoutError(), asyncio.CancelledError(), None]

    async def task() -> None:
        starts.append(len(starts))
        if len(starts) > len(ends):
            await asyncio.Event().wait()
        if (error := ends[len(starts) - 1]) is not None:
            raise error

    monkeypatch.setattr("shared.service.RESTART_AFTER_S", 0.001)
    app = create_app(service_on(dsn), Part(background=[task], migrations=["shared"]))
    async with app.router.lifespan_context(app):

        async def started_again_each_time() -> bool:
            return len(starts) == len(ends) + 1

        await wait_until(started_again_each_time)
    assert len(starts) == len(ends) + 1
