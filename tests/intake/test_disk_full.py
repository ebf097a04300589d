"""Intake on a full disk: 503, nothing half stored, nothing accepted is lost, and it recovers by itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest_asyncio

from deploy.local.ports import free_port
from deploy.local.postgres import Postgres
from services.workflow.procedures import shipped
from shared.postgres import pool as database
from tests.fixtures.databases import QUICK
from tests.fixtures.disk import SEGMENT, let_files_grow_to
from tests.fixtures.services import ServiceProcess, StartService
from tests.fixtures.waiting import wait_until
from tests.intake.conftest import DOCUMENTS, assert_problem, example, nobody, publish, start_in_2025, until_it_knows

PATH = "/v1/dossiers"
SCAN = os.urandom(6_000_000)
ACKNOWLEDGED = {**QUICK, "synchronous_commit": "on"}
"""What was answered 201 must survive the end of PostgreSQL. Without fsync it need not survive that of the machine."""


class Site:
    """A PostgreSQL of the test's own, and an intake that uses it."""

    def __init__(self, server: Postgres, service: ServiceProcess) -> None:
        self.server, self.service = server, service
        self.counter = service.client("counter")

    async def submit(self, key: str) -> httpx2.Response:
        return await self.counter.post(PATH, json=example(), headers={"Idempotency-Key": key})

    async def upload(self, number: int) -> httpx2.Response:
        """Submit a dossier and upload a scan of its first component."""
        dossier_id = (await self.submit(f"scanned-{number}")).json()["dossier_id"]
        path = f"{PATH}/{dossier_id}/components/{example()['components'][0]['code']}/content"
        return await self.counter.put(path, content=SCAN, headers={"Content-Type": "image/tiff"})

    async def count(self, what: str) -> int:
        pool = await database.open_pool(self.server.dsn(), name="test", size=1)
        try:
            return int(await pool.fetchval(f"select count(*) from {what}"))
        finally:
            await pool.close()


@pytest_asyncio.fixture
async def site(tmp_path: Path, start_service: StartService) -> AsyncIterator[Site]:
    server = Postgres(tmp_path / "postgres", free_port(), settings=ACKNOWLEDGED)
    await asyncio.to_thread(server.start)
    try:
        service = await start_in_2025(start_service, server.dsn(), nobody())
        pool = await database.open_pool(server.dsn(), name="test", size=1)
        await publish(pool, DOCUMENTS)
        await pool.close()
        await until_it_knows(service, len(shipped()))
        made = Site(server, service)
        yield made
        await made.counter.aclose()
        service.kill()
    finally:
        await asyncio.to_thread(server.destroy)


def assert_come_again(answer: httpx2.Response) -> None:
    assert_problem(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0


async def test_when_tables_cannot_grow_an_upload_is_refused_whole_and_works_when_there_is_room(site: Site) -> None:
    await asyncio.to_thread(let_files_grow_to, site.server, SEGMENT + 1_000_000)
    stored = 0
    while (answer := await site.upload(stored)).status_code == 201:
        stored += 1
        assert stored < 10, "the limit has no effect"
    assert_come_again(answer)
    assert stored > 0
    assert "File too large" in site.server.log.read_text()
    assert await site.count("contents") == stored
    assert await site.count("(select distinct upload_id from content_pieces) as uploads") == stored
    # Other tables have room.
    assert (await site.submit("elsewhere")).status_code == 201
    await asyncio.to_thread(let_files_grow_to, site.server, None)
    assert (await site.upload(stored)).status_code == 201
    assert await site.count("contents") == stored + 1
    assert site.service.poll() is None


async def test_when_postgresqls_log_cannot_be_written_nothing_that_was_accepted_is_lost(
    site: Site,
) -> None:
    """PostgreSQL cannot go on without its log: it ends (PANIC) and starts again when there is room."""
    pid = site.service.pid
    accepted = [(await site.submit(f"before-{number}")).json() for number in range(20)]
    await asyncio.to_thread(let_files_grow_to, site.server, 8_192)
    answers = await asyncio.gather(*(site.submit(f"during-{number}") for number in range(10)))
    for answer in answers:
        assert_come_again(answer)
    await wait_until(lambda: site.server.poll() is not None, 30, what="PostgreSQL has ended")
    assert "PANIC" in site.server.log.read_text()
    assert_come_again(await site.submit("while-it-is-away"))
    async with site.service.client("ops") as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
    # The new process has no limit, as if somebody had made room.
    await asyncio.to_thread(site.server.start)

    async def accepts() -> bool:
        return (await site.submit("after")).status_code in (200, 201)

    await wait_until(accepts, 30, every_s=0.05)
    for number, answer in enumerate(accepted):
        again = await site.submit(f"before-{number}")
        assert (again.status_code, again.json()) == (200, answer)
    for number in range(10):
        assert (await site.submit(f"during-{number}")).status_code == 201
    assert await site.count("submissions") == await site.count("events where dossier_id is not null") == 31
    assert (site.service.pid, site.service.poll()) == (pid, None)
