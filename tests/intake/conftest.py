"""A running intake without a broker; its procedures are written into its table by the tests."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import pytest_asyncio

from deploy.local.ports import free_port
from services.workflow.procedures import shipped
from shared.kafka.settings import KafkaSettings
from shared.postgres import pool as database
from tests.fixtures.databases import Databases
from tests.fixtures.openapi import checks_answers
from tests.fixtures.services import ServiceProcess, StartService
from tests.fixtures.waiting import wait_until

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

PACKAGES = ("shared", "services.intake")
BIRTH = "1.001193"
DOCUMENTS: dict[str, dict[str, Any]] = {
    code: procedure.model_dump(mode="json", exclude={"intake_mode", "record_only_reason"})
    for code, procedure in shipped().items()
}
NOBODY = "nobody"
NOT_YET, CLOSED = "HOSO.NOT-YET", "HOSO.CLOSED"
OFFICE0 = "2025-08-25T09:00:00+07:00"
TABLES = ("submissions", "requests", "contents", "content_pieces")


def documents() -> dict[str, dict[str, Any]]:
    """All shipped procedures, one that is not valid yet and one that is closed."""
    documents = copy.deepcopy(DOCUMENTS)
    for code, change in ((NOT_YET, {"valid_from": "2031-01-01"}), (CLOSED, {"valid_to": "2025-08-24"})):
        documents[code] = {**copy.deepcopy(DOCUMENTS[BIRTH]), "code": code, **change}
        documents[code]["example"]["procedure_code"] = code
    return documents


def example(code: str = BIRTH, **changes: Any) -> dict[str, Any]:
    """A body that is accepted as it is, with `changes`."""
    return {**copy.deepcopy(DOCUMENTS.get(code, DOCUMENTS[BIRTH])["example"]), "procedure_code": code, **changes}


async def publish(pool: Pool, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what intake's handler would write."""
    await pool.executemany(
        "insert into procedures (code, version, procedure) values ($1, $2, $3) on conflict do nothing",
        [(code, document["version"], json.dumps(document)) for code, document in documents.items()],
    )


def nobody() -> KafkaSettings:
    """A broker that is not there."""
    return KafkaSettings(f"127.0.0.1:{free_port()}", "tansu")


async def start_in_2025(start: StartService, dsn: str, kafka: KafkaSettings, wait: bool = True) -> ServiceProcess:
    """Intake on the morning of `OFFICE0`."""
    return await start("intake", dsn, kafka, wait=wait, HOSO_OFFICE0=OFFICE0, HOSO_WALL0=str(time.time()))


async def until_it_knows(service: ServiceProcess, count: int) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:

        async def knows() -> bool:
            return bool((await client.get("/readyz")).json().get("procedures") == count)

        await wait_until(knows, 15, every_s=0.05)


class Intake:
    """The running service, its database, and clients that check every answer against the OpenAPI document."""

    def __init__(self, service: ServiceProcess, pool: Pool) -> None:
        self.service, self.pool = service, pool
        self.counter, self.system, self.nobody = [self.client(role) for role in ("counter", "system", NOBODY)]
        self._keys = 0

    def client(self, role: str) -> httpx2.AsyncClient:
        """A client with the token of a role, or without one for NOBODY."""
        made = (
            httpx2.AsyncClient(base_url=self.service.url, timeout=30) if role == NOBODY else self.service.client(role)
        )
        made.event_hooks = checks_answers("intake")
        return made

    def key(self) -> dict[str, str]:
        """A header with a fresh idempotency key."""
        self._keys += 1
        return {"Idempotency-Key": f"key-{self._keys}"}

    async def submit(self, body: Any, **more: Any) -> httpx2.Response:
        return await self.counter.post("/v1/dossiers", json=body, headers={**self.key(), **more})

    async def submitted(self, body: Any | None = None) -> dict[str, Any]:
        """The answer to an accepted submission."""
        answer = await self.submit(body or example())
        assert answer.status_code == 201, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted

    async def stored(self) -> dict[str, int]:
        """Rows of each of intake's own tables, and of its events."""
        counts = {table: await self.pool.fetchval(f"select count(*) from {table}") for table in TABLES}
        counts["events"] = await self.pool.fetchval("select count(*) from events where dossier_id is not null")
        return counts

    async def close(self) -> None:
        for client in (self.counter, self.system, self.nobody):
            await client.aclose()


@pytest_asyncio.fixture(scope="module")
async def intake(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Intake]:
    """One process for all tests of a module; each test counts what it changes."""
    dsn = await databases.create(*PACKAGES)
    pool = await database.open_pool(dsn, name="test", size=4)
    starter = StartService(tmp_path_factory.mktemp("intake"))
    await publish(pool, documents())
    service = await start_in_2025(starter, dsn, nobody())
    await until_it_knows(service, len(documents()))
    running = Intake(service, pool)
    yield running
    await running.close()
    starter.end()
    pool.terminate()
    await databases.drop(dsn)


def assert_problem(answer: httpx2.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Fail unless the answer is a problem+json in both languages; returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["type"] == f"urn:hoso:problem:{problem['code']}"
    assert problem["title"] != "Error"
    assert problem["detail"]
    assert problem["detail_en"]
    assert problem["detail"] != problem["detail_en"]
    assert not problem["detail"].isascii()
    if code is not None:
        assert problem["code"] == code, problem
    for row in problem.get("errors", ()):
        assert row["field"]
        assert row["code"]
        assert row["vi"]
        assert row["en"]
    return problem
