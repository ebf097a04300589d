"""Intake without procedures, without a broker, without PostgreSQL: it answers 503 where it must, and recovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest_asyncio

from deploy.local.ports import free_port
from deploy.local.postgres import Postgres
from services.intake import store
from services.intake.app import ABANDONED_AFTER_S
from services.workflow.procedures import shipped
from shared.contract.envelope import new_id
from shared.kafka.settings import KafkaSettings
from shared.postgres import pool as database
from tests.fixtures.databases import QUICK, MakePool
from tests.fixtures.services import ServiceProcess, StartService
from tests.fixtures.waiting import wait_until
from tests.intake.conftest import (
    DOCUMENTS,
    PACKAGES,
    assert_problem,
    example,
    nobody,
    publish,
    start_in_2025,
    until_it_knows,
)

PATH = "/v1/dossiers"


async def submit(service: ServiceProcess, key: str) -> httpx2.Response:
    async with service.client("counter") as client:
        return await client.post(PATH, json=example(), headers={"Idempotency-Key": key})


async def test_it_answers_503_until_it_has_its_first_copy_of_the_procedures(
    make_pool: MakePool, start_service: StartService
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    service = await start_in_2025(start_service, dsn, nobody())
    answer = await submit(service, "early")
    assert_problem(answer, 503, "procedures-not-yet-known")
    assert int(answer.headers["retry-after"]) > 0
    assert await pool.fetchval("select count(*) from submissions") == 0
    await publish(pool, DOCUMENTS)
    await until_it_knows(service, len(shipped()))
    assert (await submit(service, "early")).status_code == 201


async def test_it_starts_accepts_and_restarts_while_the_broker_is_down(
    make_pool: MakePool, start_service: StartService
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    await publish(pool, DOCUMENTS)
    service = await start_in_2025(start_service, dsn, nobody())
    await until_it_knows(service, len(shipped()))
    accepted = [await submit(service, f"key-{number}") for number in range(3)]
    service.kill()
    service.start()
    await service.until_ready()
    await until_it_knows(service, len(shipped()))
    again = await submit(service, "key-0")
    assert [answer.status_code for answer in accepted] == [201] * 3
    assert (again.status_code, again.json()) == (200, accepted[0].json())
    async with service.client("ops") as client:
        ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["broker"]) == (200, "connecting")
    assert await pool.fetchval("select count(*) from events where dossier_id is not null") == 3
    assert await pool.fetchval("select count(*) from proof.events where sent_at is not null") == 0


async def test_what_is_accepted_without_a_broker_is_sent_when_there_is_one(
    kafka: KafkaSettings, make_pool: MakePool, start_service: StartService
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    await publish(pool, DOCUMENTS)
    alone = await start_in_2025(start_service, dsn, nobody())
    await until_it_knows(alone, len(shipped()))
    assert (await submit(alone, "key")).status_code == 201
    alone.kill()
    await start_in_2025(start_service, dsn, kafka)

    async def all_sent() -> bool:
        return not await pool.fetchval("select count(*) from proof.events where sent_at is null")

    await wait_until(all_sent, 30)


async def test_pieces_that_a_killed_process_left_are_deleted_and_no_others(make_pool: MakePool) -> None:
    pool = await make_pool(*PACKAGES)
    old, young = new_id(), new_id()
    for upload, number in ((old, 0), (old, 1), (young, 0)):
        await store.add_piece(pool, upload, number, b"piece")
    await pool.execute(
        "update content_pieces set stored_at = stored_at - interval '25 hours' where upload_id = $1 and number = 0", old
    )
    await store.drop_abandoned(pool, ABANDONED_AFTER_S)
    rows = await pool.fetch("select upload_id from content_pieces")
    assert [row["upload_id"] for row in rows] == [young]


@pytest_asyncio.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    server = Postgres(tmp_path / "postgres", free_port(), settings=QUICK)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.destroy)


async def test_without_postgresql_it_answers_503_and_recovers_without_a_restart(
    own_postgres: Postgres, start_service: StartService
) -> None:
    dsn = own_postgres.dsn()
    service = await start_in_2025(start_service, dsn, nobody())
    pid = service.pid
    pool = await database.open_pool(dsn, name="test", size=1)
    await publish(pool, DOCUMENTS)
    await pool.close()
    await until_it_knows(service, len(shipped()))
    before = await submit(service, "before")
    assert before.status_code == 201
    await asyncio.to_thread(own_postgres.stop)
    answers = await asyncio.gather(*(submit(service, f"during-{number}") for number in range(4)))
    for answer in answers:
        assert_problem(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
    async with service.client("ops") as client:
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        shown = await client.get(f"{PATH}/{before.json()['dossier_id']}")
    assert_problem(shown, 503, "unavailable")
    await asyncio.to_thread(own_postgres.start)

    async def accepts() -> bool:
        return (await submit(service, "after")).status_code in (200, 201)

    await wait_until(accepts, 30, every_s=0.05)
    assert (await submit(service, "before")).json() == before.json()
    assert (await submit(service, "during-0")).status_code == 201
    assert service.pid == pid
    assert service.poll() is None


async def test_it_starts_before_postgresql_does(own_postgres: Postgres, start_service: StartService) -> None:
    await asyncio.to_thread(own_postgres.stop)
    service = await start_in_2025(start_service, own_postgres.dsn(), nobody(), wait=False)
    async with service.client("counter") as client:

        async def lives() -> bool:
            try:
                return (await client.get("/livez")).status_code == 200
            except httpx2.HTTPError:
                return False

        await wait_until(lives, 20, every_s=0.05)
        answer = await client.post(PATH, json=example(), headers={"Idempotency-Key": "early"})
    assert_problem(answer, 503, "unavailable")
    await asyncio.to_thread(own_postgres.start)
    await service.until_ready()
