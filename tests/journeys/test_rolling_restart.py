"""Two instances of each service are restarted in turn under load, and no request fails."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg

from deploy.local import call
from deploy.local.program import Program
from deploy.local.stack import Stack
from deploy.local.trouble import Trouble
from tests.fixtures.waiting import wait_until
from tests.journeys.balancer import Balancer
from tests.journeys.town import BIRTH, COPY, Town

SERVICES = ("intake", "workflow", "idlookup", "notify")
AGENCY = "H44.J80"
OFFICERS = ("counter", "specialist", "signatory", "records_clerk")
DRAIN = {"HOSO_DRAIN_S": "2"}


def program(stack: Stack, name: str) -> Program:
    runnable = stack.supervisor[name].runnable
    assert isinstance(runnable, Program)
    return runnable


async def until_connected(stack: Stack, *names: str) -> None:
    """Wait until each is ready and connected to the broker: its consumer has partitions or its relay is connected."""
    assert stack.environment is not None
    for name in names:
        url = stack.environment.urls[name]

        def is_connected(url: str = url) -> bool:
            try:
                return bool(call.call(url, "/readyz", timeout=3.0)["broker"] == "connected")
            except Trouble:
                return False

        await wait_until(lambda: asyncio.to_thread(is_connected), 90, what=f"{name} is connected", every_s=0.05)


@contextlib.asynccontextmanager
async def two_of_each(stack: Stack) -> AsyncIterator[dict[str, tuple[str, ...]]]:
    """Yield service -> its two instances, all with a drain time. Afterwards each service has one instance again."""
    assert stack.environment is not None
    extra, before = stack.environment.extra, {name: program(stack, name).env for name in SERVICES}
    stack.environment.extra = {**extra, **DRAIN}
    added = []
    try:
        for name in SERVICES:
            program(stack, name).env = {**before[name], **DRAIN}
        await asyncio.gather(*(asyncio.to_thread(stack.restart, name) for name in SERVICES))
        await until_connected(stack, *SERVICES)
        added = list(
            await asyncio.gather(*(asyncio.to_thread(stack.add_instance, name, None, 90) for name in SERVICES))
        )
        yield {name: (name, other) for name, other in zip(SERVICES, added, strict=True)}
    finally:
        stack.environment.extra = extra
        for name, env in before.items():
            program(stack, name).env = env
        await asyncio.gather(*(asyncio.to_thread(stack.remove_instance, name) for name in added))


class Load:
    """Submissions and officers' work through the balancer, until `over` is set."""

    def __init__(self, town: Town, balancer: Balancer) -> None:
        self._town, self._balancer = town, balancer
        self.over = asyncio.Event()
        self.accepted: set[str] = set()
        self.completed = 0

    async def file(self) -> None:
        codes = (BIRTH, COPY)
        while not self.over.is_set():
            submission = self._town.submission(codes[len(self.accepted) % 2], AGENCY)
            key = {"Idempotency-Key": str(uuid4())}
            answer = await self._balancer.call("intake", "POST", "/v1/dossiers", "counter", submission, **key)
            if answer:
                self.accepted.add(answer["dossier_id"])
                await self._balancer.call("notify", "GET", f"/v1/notices?dossier_id={answer['dossier_id']}", "ops")
            await asyncio.sleep(0.05)

    async def work(self, role: str) -> None:
        while not self.over.is_set():
            page = await self._balancer.call("workflow", "GET", f"/v1/tasks?role={role}&agency={AGENCY}&limit=20", role)
            items = [
                {
                    "task_id": task["task_id"],
                    "version": task["version"],
                    "outcome": next(each["code"] for each in task["outcomes"] if each["forward"]),
                }
                for task in page.get("items", ())
                if task["outcomes"] and not task["waiting_for"]
            ]
            if items:
                answer = await self._balancer.call("workflow", "POST", "/v1/tasks/complete", role, {"items": items})
                self.completed += sum(item["status"] == 200 for item in answer.get("items", ()))
            await self._balancer.call("idlookup", "GET", "/v1/parked", "ops")
            await asyncio.sleep(0.05)


async def stop_and_start(stack: Stack, name: str) -> int | None:
    """Stop the process with SIGTERM and start it again. Returns its exit status."""
    await asyncio.to_thread(stack.take_down, name)
    status = program(stack, name).poll()
    await asyncio.to_thread(stack.bring_back, name)
    return status


async def test_a_rolling_restart_under_load_fails_no_request_and_loses_nothing(
    town: Town,
) -> None:
    stack = town.stack
    async with two_of_each(stack) as names:
        balancer = Balancer(stack, names)
        load = Load(town, balancer)
        async with balancer.checking():
            await wait_until(lambda: len(balancer.ready) == 2 * len(SERVICES), 30)
            tasks = [asyncio.create_task(each) for each in (load.file(), *(load.work(role) for role in OFFICERS))]
            for turn in range(2):
                restarted = [names[service][turn] for service in SERVICES]
                completed, accepted = load.completed, len(load.accepted)
                statuses = await asyncio.gather(*(stop_and_start(stack, name) for name in restarted))
                assert -signal.SIGKILL not in statuses, dict(zip(restarted, statuses, strict=True))
                await until_connected(stack, *restarted)
                await wait_until(lambda: len(balancer.ready) == 2 * len(SERVICES), 30)
                # The work continued during the restarts.
                assert load.completed > completed
                assert len(load.accepted) > accepted
            load.over.set()
            await asyncio.gather(*tasks)
        assert balancer.failed == []
    await asyncio.to_thread(stack.wait_ready)
    connection = await asyncpg.connect(stack.endpoints["databases"]["intake"])
    try:
        stored = {str(row[0]) for row in await connection.fetch("select dossier_id from proof.submissions")}
    finally:
        await connection.close()
    assert load.accepted <= stored
    await town.prove()
