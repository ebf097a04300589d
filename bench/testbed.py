"""The testbed of all measurements: one stack of its own, its databases, and control over intake's relay."""

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
from shared.outbox.publish import append
from shared.postgres.writes import Writes
from shared.privacy.sealed import Sealer

SERVICES = ("intake", "workflow", "idlookup", "notify")
HEALTHY = {"latency_p50_s": 0.0, "latency_p95_s": 0.0, "capacity_per_s": 100_000.0, "hang": False, "down": False}
"""A registry that answers at once and is never the limit."""
BATCH = 500
"""Submissions per transaction when a log is filled."""
WAL_MB = 1_000
"""More than one run writes to the write-ahead log."""


class Stalled(RuntimeError):
    """The measured work did not finish in time."""


class Testbed:
    """A started stack. `used` counts the dossiers made so far, so that no two are equal."""

    def __init__(self, stack: Stack) -> None:
        assert stack.environment is not None
        self.stack = stack
        self.tokens = stack.environment.tokens
        self.dsn: dict[str, str] = stack.endpoints["databases"]
        self.url: dict[str, str] = {name: stack.endpoints[name] for name in (*SERVICES, "registry", "sms")}
        self.kafka: str = stack.endpoints["kafka"]
        settings = stack.environment.service("intake", 0, "")
        self.seal_keys = settings["HOSO_SEAL_KEYS"]
        self.sealer = Sealer(self.seal_keys)
        self.clock: OfficeClock = stack.environment.clock
        page = call.call(self.url["workflow"], "/v1/procedures", query={"limit": 1000}, token=self.tokens["ops"])
        self.examples = {row["code"]: row["example"] for row in page["items"]}
        self.versions = {row["code"]: row["version"] for row in page["items"]}
        self.used = 0

    def registry(self, **settings: Any) -> None:
        """Set the registry simulator to healthy, except for `settings`."""
        call.call(self.url["registry"], "/control", method="PUT", body={**HEALTHY, **settings})

    async def fill(self, count: int) -> None:
        """Commit `count` submissions into intake's log, by intake's own statements, BATCH per transaction."""
        numbers = range(self.used + 1, self.used + 1 + count)
        self.used += count
        connection = await asyncpg.connect(self.dsn["intake"])
        try:
            for first in range(0, count, BATCH):
                part = numbers[first : first + BATCH]
                new = list(submissions(self.examples, self.versions, self.sealer, self.clock.now(), part))
                async with connection.transaction():
                    await store.add_submissions(connection, new)
                    writes = Writes()
                    append(writes, [Outgoing(row.dossier_id, 1, row.fact, new_id(), row.trace_id) for row in new])
                    await writes.run(connection)
        finally:
            await connection.close()


@contextlib.contextmanager
def open_testbed(*, with_wal_files: bool = True, **options: Any) -> Iterator[Testbed]:
    """Start a stack in a temporary folder with a healthy registry; it is ready inside the block and removed after it.

    `with_wal_files`: create PostgreSQL's write-ahead log files beforehand. `options`: those of Stack.
    """
    with tempfile.TemporaryDirectory(prefix="hoso-bench-") as folder:
        stack = Stack(Path(folder) / "data", port_base=ports.free_base(), **options)
        with stack:
            stack.wait_ready(90)
            testbed = Testbed(stack)
            testbed.registry()
            if with_wal_files:
                _create_wal_files(stack)
            yield testbed


def _create_wal_files(stack: Stack) -> None:
    """Create the files of the write-ahead log, which PostgreSQL then reuses.

    Otherwise a new server creates and zeroes 16 MB files during commits, which slows down the first run only.
    """
    stack.postgres.execute(
        f"select count(pg_logical_emit_message(false, 'bench', repeat('0', 1000000))) from generate_series(1, {WAL_MB})"
    )
    stack.postgres.execute("checkpoint")


@contextlib.asynccontextmanager
async def held_relay(testbed: Testbed) -> AsyncIterator[None]:
    """Inside the block intake's relay owns no lane; everything else runs. The lanes are free again after it."""
    holder = await asyncpg.connect(testbed.dsn["intake"])
    try:
        taking = asyncio.create_task(
            holder.execute("select pg_advisory_lock(2, lane) from generate_series(0, 11) as lane")
        )
        await asyncio.sleep(0.1)
        async with connect(testbed.dsn["intake"]) as other:
            await other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'intake-relay'"
            )
        async with asyncio.timeout(20):
            await taking
        yield
    finally:
        await holder.close()


@contextlib.asynccontextmanager
async def connect(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def epochs(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    return int(await connection.fetchval("select sum(epoch) from lanes"))


async def relay_taken(testbed: Testbed, before: int, timeout_s: float = 30.0) -> datetime:
    """Wait until intake's relay owns a lane after `before` (a sum of epochs) and return that time."""
    deadline = time.monotonic() + timeout_s
    async with connect(testbed.dsn["intake"]) as connection:
        while time.monotonic() < deadline:
            row = await connection.fetchrow("select sum(epoch) as epochs, clock_timestamp() as now from lanes")
            assert row is not None
            if row["epochs"] > before:
                now: datetime = row["now"]
                return now
            await asyncio.sleep(0.005)
    raise Stalled("intake's relay took no lane")
