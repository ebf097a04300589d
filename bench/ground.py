"""Where everything is measured: one stack of our own, its databases, and a hand on intake's relay."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg

from bench.workload import submissions
from deploy.local import call, ports
from deploy.local.stack import Stack
from services.intake import store
from shared.clock import OfficeClock
from shared.contract.envelope import Outgoing, new_id
from shared.outbox.publish import stage
from shared.privacy.sealed import Sealer

SERVICES = ("intake", "workflow", "idlookup", "notify")
HEALTHY = {"latency_p50_s": 0.0, "latency_p95_s": 0.0, "capacity_per_s": 100_000.0, "hang": False, "down": False}
"""A registry that answers at once and never is the limit."""
STAGED = 500
"""Submissions in one transaction of the filling."""
LOG_MB = 1_000
"""What a run writes and more."""


class Stalled(RuntimeError):
    """What was measured did not come to its end in time."""


class Ground:
    """A started stack. `spent` counts the dossiers handed out, so that no two are alike."""

    def __init__(self, stack: Stack) -> None:
        assert stack.environment is not None
        self.stack = stack
        self.tokens = stack.environment.tokens
        self.dsn: dict[str, str] = stack.endpoints["databases"]
        self.url: dict[str, str] = {name: stack.endpoints[name] for name in (*SERVICES, "registry", "sms")}
        self.kafka: str = stack.endpoints["kafka"]
        told = stack.environment.service("intake", 0, "")
        self.seal_keys = told["HOSO_SEAL_KEYS"]
        self.sealer = Sealer(self.seal_keys)
        self.clock: OfficeClock = stack.environment.clock
        said = call.call(self.url["workflow"], "/v1/procedures", query={"limit": 1000}, token=self.tokens["ops"])
        self.examples = {row["code"]: row["example"] for row in said["items"]}
        self.versions = {row["code"]: row["version"] for row in said["items"]}
        self.spent = 0

    def registry(self, **weather: Any) -> None:
        """Tell the simulator how to behave: healthy, but for `weather`."""
        call.call(self.url["registry"], "/control", method="PUT", body={**HEALTHY, **weather})

    async def fill(self, count: int) -> None:
        """Commit `count` submissions into intake's log, by intake's own statements, `STAGED` in a transaction."""
        numbers = range(self.spent + 1, self.spent + 1 + count)
        self.spent += count
        connection = await asyncpg.connect(self.dsn["intake"])
        try:
            for first in range(0, count, STAGED):
                part = numbers[first : first + STAGED]
                new = list(submissions(self.examples, self.versions, self.sealer, self.clock.now(), part))
                async with connection.transaction():
                    await store.add_submissions(connection, new)
                    await stage(
                        connection, [Outgoing(row.dossier_id, 1, row.fact, new_id(), row.trace_id) for row in new]
                    )
        finally:
            await connection.close()


@contextlib.contextmanager
def ground(*, as_after_a_while: bool = True, **options: Any) -> Iterator[Ground]:
    """A stack in a folder of its own, ready, with a healthy registry; gone afterwards.

    `as_after_a_while`: PostgreSQL has the files of its log already. `options`: of the Stack.
    """
    with tempfile.TemporaryDirectory(prefix="hoso-bench-") as folder:
        stack = Stack(Path(folder) / "data", port_base=ports.free_base(), **options)
        with stack:
            stack.wait_ready(90)
            place = Ground(stack)
            place.registry()
            if as_after_a_while:
                _lay_out_log(stack)
            yield place


def _lay_out_log(stack: Stack) -> None:
    """PostgreSQL uses the files of its log again and again.

    A new one makes and zeroes 16 MB whenever it needs more, in somebody's commit: in the run of whoever is first.
    """
    stack.postgres.execute(
        f"select count(pg_logical_emit_message(false, 'bench', repeat('0', 1000000))) from generate_series(1, {LOG_MB})"
    )
    stack.postgres.execute("checkpoint")


@contextlib.asynccontextmanager
async def held_relay(place: Ground) -> AsyncIterator[None]:
    """Intake's relay owns no lane inside; everything else runs. Let go on leaving."""
    holder = await asyncpg.connect(place.dsn["intake"])
    try:
        taking = asyncio.create_task(
            holder.execute("select pg_advisory_lock(2, lane) from generate_series(0, 11) as lane")
        )
        await asyncio.sleep(0.1)
        async with one(place.dsn["intake"]) as other:
            await other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'intake-relay'"
            )
        async with asyncio.timeout(20):
            await taking
        yield
    finally:
        await holder.close()


@contextlib.asynccontextmanager
async def one(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def epochs(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    return int(await connection.fetchval("select sum(epoch) from lanes"))


async def relay_taken(place: Ground, before: int, timeout_s: float = 30.0) -> datetime:
    """When intake's relay first owned a lane after `before` (a sum of epochs)."""
    deadline = time.monotonic() + timeout_s
    async with one(place.dsn["intake"]) as connection:
        while time.monotonic() < deadline:
            row = await connection.fetchrow("select sum(epoch) as epochs, clock_timestamp() as now from lanes")
            assert row is not None
            if row["epochs"] > before:
                found: datetime = row["now"]
                return found
            await asyncio.sleep(0.005)
    raise Stalled("intake's relay took no lane")
