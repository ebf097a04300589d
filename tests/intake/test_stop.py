"""A graceful stop: not ready at once, every request answered, and only then the socket closed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest_asyncio

from services.workflow.procedures import shipped
from tests.fixtures.databases import MakePool
from tests.fixtures.services import ServiceProcess, StartService
from tests.fixtures.waiting import wait_until
from tests.intake.conftest import OFFICE0, PACKAGES, Intake, documents, nobody, publish, until_it_knows


class Stopping:
    """Starts intakes that wait `drain_s` before they close their socket."""

    def __init__(self, make_pool: MakePool, start: StartService) -> None:
        self._make_pool, self._start = make_pool, start
        self.started: list[Intake] = []

    async def intake(self, drain_s: float) -> Intake:
        dsn, pool = await self._make_pool.with_dsn(*PACKAGES)
        await publish(pool, documents())
        clock = {"HOSO_OFFICE0": OFFICE0, "HOSO_WALL0": str(time.time())}
        service = await self._start("intake", dsn, nobody(), HOSO_DRAIN_S=str(drain_s), **clock)
        await until_it_knows(service, len(documents()))
        self.started.append(Intake(service, pool))
        return self.started[-1]


@pytest_asyncio.fixture
async def stopping(make_pool: MakePool, start_service: StartService) -> AsyncIterator[Stopping]:
    starter = Stopping(make_pool, start_service)
    yield starter
    for intake in starter.started:
        await intake.close()


async def refuses_connections(service: ServiceProcess) -> bool:
    """Whether a new connection is refused."""
    try:
        _, line = await asyncio.open_connection("127.0.0.1", service.port)
    except OSError:
        return True
    line.close()
    return False


async def test_after_the_signal_it_is_not_ready_and_answers_until_the_load_balancer_has_noticed(
    stopping: Stopping,
) -> None:
    intake = await stopping.intake(drain_s=600)
    await intake.submitted()
    os.kill(intake.service.pid, signal.SIGTERM)

    async def is_stopping() -> bool:
        answer = await intake.nobody.get("/readyz")
        return answer.status_code == 503 and answer.json()["status"] == "stopping"

    await wait_until(is_stopping)
    assert (await intake.nobody.get("/livez")).status_code == 200
    for _ in range(3):
        answer = await intake.submit(shipped()["1.001193"].example)
        assert (answer.status_code, answer.headers["connection"]) == (201, "close")
    assert (await intake.stored())["submissions"] == 4


async def test_a_request_under_way_when_the_socket_closes_is_carried_out_and_answered(stopping: Stopping) -> None:
    intake = await stopping.intake(drain_s=0)
    async with intake.pool.acquire() as tx, tx.transaction():
        await tx.execute("lock table submissions")
        waiting = asyncio.create_task(intake.submit(shipped()["1.001193"].example))

        async def is_under_way() -> bool:
            return bool(
                await tx.fetchval(
                    "select exists(select 1 from pg_locks where not granted and database = (select oid"
                    " from pg_database where datname = current_database()))"
                )
            )

        await wait_until(is_under_way)
        os.kill(intake.service.pid, signal.SIGTERM)
        await wait_until(lambda: refuses_connections(intake.service))
        assert not waiting.done()
    answer = await waiting
    assert answer.status_code == 201
    await wait_until(lambda: intake.service.poll() is not None, 20)
    assert intake.service.poll() != -signal.SIGKILL
    assert (await intake.stored())["submissions"] == 1
