"""Measures the memory of a service with a million unsent events, and of one with a million unread records.

`python -m bench.backlog [--count N] [--seconds S]` starts its own PostgreSQL and Apache Kafka (needs Java and Maven)
and writes `results/backlog.json`. First intake's log fills while the broker is down. Then intake sends everything, and
workflow reads from the oldest record for some seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console

from bench.testbed import connect
from bench.workload import submissions
from deploy.demo.conduct import pss_mb
from deploy.kafka import KafkaCluster
from deploy.local.environment import Environment
from deploy.local.keys import Keys
from deploy.local.ports import free_base, free_port
from deploy.local.postgres import Postgres
from deploy.local.processes import end, spawn
from deploy.machine import commit, machine
from services.workflow.procedures import shipped
from shared.clock import OfficeClock
from shared.contract.envelope import new_id
from shared.contract.events import SUBMISSIONS
from shared.contract.partitions import lane_of
from shared.privacy.sealed import Sealer

RESULT = Path(__file__).parent / "results" / "backlog.json"
ROWS_PER_COPY = 5_000
SAMPLE_S = 0.1
SENT = f"select coalesce(sum(last_offset + 1), 0)::bigint from broker_marks where topic = '{SUBMISSIONS}'"
APPLIED = f"select coalesce(sum(last), 0)::bigint from heads where topic = '{SUBMISSIONS}'"


class Watch:
    """Samples a process's memory until stop(). MB."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak = pid, 0.0
        self._task = asyncio.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, pss_mb({"process": self.pid}))
            await asyncio.sleep(SAMPLE_S)

    def stop(self) -> dict[str, float]:
        self._task.cancel()
        return {"peak_pss_mb": round(self.peak, 1), "peak_rss_mb": round(peak_rss_mb(self.pid), 1)}


def peak_rss_mb(pid: int) -> float:
    """Return the kernel's high-water mark of a process's memory, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def values(kinds: int = 1_000, extra_bytes: int = 0) -> list[bytes]:
    """Return `kinds` different DossierSubmitted as JSON, each with `extra_bytes` more in its sealed subject."""
    documents = shipped()
    examples = {code: document.example for code, document in documents.items()}
    versions = {code: document.version for code, document in documents.items()}
    sealer = Sealer("k1:" + "A" * 43 + "=")
    rows = submissions(examples, versions, sealer, datetime.now(UTC), range(1, kinds + 1))
    padding = "x" * extra_bytes
    return [
        row.fact.model_copy(update={"sealed_subject": row.fact.sealed_subject + padding}).model_dump_json().encode()
        for row in rows
    ]


async def fill(dsn: str, count: int, data: Sequence[bytes]) -> None:
    """Store `count` unsent events, one per dossier, as intake appends them."""

    def rows() -> Iterator[tuple[Any, ...]]:
        for value in cycle(data):
            dossier_id = new_id()
            yield lane_of(str(dossier_id)), SUBMISSIONS, dossier_id, 1, new_id(), "DossierSubmitted", new_id(), value

    events = rows()
    columns = ["lane", "topic", "dossier_id", "sequence", "ce_id", "type", "trace_id", "data"]
    async with connect(dsn) as connection:
        for first in range(0, count, ROWS_PER_COPY):
            part = list(islice(events, min(ROWS_PER_COPY, count - first)))
            await connection.copy_records_to_table("events", records=part, columns=columns)


async def until(condition: Callable[[], Awaitable[Any]], timeout_s: float) -> bool:
    """Return whether the condition became true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if await condition():
            return True
        await asyncio.sleep(SAMPLE_S)
    return False


class Setup:
    """The servers and processes of one measurement."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = Postgres(folder / "postgres", free_port())
        self.kafka = KafkaCluster(1, folder / "kafka", free_base(), heap_mb=768)
        clock = OfficeClock.real()
        nowhere = {"registry": "http://127.0.0.1:9", "sms": ""}
        self._environment = Environment(Keys(folder / "keys.json"), clock, self.kafka.bootstrap, "apache", nowhere)
        self.dsn: dict[str, str] = {}

    @asynccontextmanager
    async def running(self, name: str) -> AsyncIterator[subprocess.Popen[bytes]]:
        """Run a service's process inside the block."""
        environment = self._environment.plain() | self._environment.service(name, free_port(), self.dsn[name])
        command = [sys.executable, "-m", f"services.{name}.main"]
        process = spawn(command, log=self._folder / f"{name}.log", env=environment, cwd=Path(__file__).parents[1])
        try:
            yield process
        finally:
            await asyncio.to_thread(end, process, 15, 20)

    async def number(self, name: str, query: str) -> int:
        try:
            async with connect(self.dsn[name]) as connection:
                return int(await connection.fetchval(query))
        except (asyncpg.PostgresError, OSError):
            return 0

    async def idle(self, name: str) -> float:
        """Return the PSS in MB of a service that has migrated its database and is idle."""
        async with self.running(name) as process:
            is_up = await until(lambda: self.number(name, "select count(*) from pg_class where relname = 'heads'"), 60)
            assert is_up, f"{name} did not start"
            await asyncio.sleep(5)
            return round(pss_mb({name: process.pid}), 1)


async def measure(folder: Path, count: int, seconds: float, console: Console) -> dict[str, Any]:
    """Measure both halves and return the figures. Workflow is watched for at most `seconds`."""
    bench = Setup(folder)
    await asyncio.to_thread(bench.server.start)
    try:
        bench.dsn = bench.server.ensure_service_databases(["intake", "workflow"])
        idle = {name: await bench.idle(name) for name in ("intake", "workflow")}
        started = time.monotonic()
        await fill(bench.dsn["intake"], count, values())
        console.print(f"{count:,} events stored in {time.monotonic() - started:.0f} s; idle: {idle}")
        sending = await _send(bench, count, idle["intake"])
        console.print(f"intake: {sending}")
        reading = await _read(bench, count, seconds, idle["workflow"])
        console.print(f"workflow: {reading}")
    finally:
        await bench.kafka.stop()
        await asyncio.to_thread(bench.server.destroy)
    return {"count": count, "relay": sending, "consumer": reading}


async def _send(bench: Setup, count: int, idle: float) -> dict[str, Any]:
    async with bench.running("intake") as process:
        waiting = Watch(process.pid)
        await asyncio.sleep(10)
        before = waiting.stop()
        await bench.kafka.start()
        watch = Watch(process.pid)

        async def first() -> bool:
            return await bench.number("intake", SENT) > 0

        async def last() -> bool:
            return await bench.number("intake", SENT) >= count

        assert await until(first, 60), "no event was sent"
        started, already = time.monotonic(), await bench.number("intake", SENT)
        done = await until(last, 600)
        took, sent = time.monotonic() - started, await bench.number("intake", SENT)
        assert done, f"only {sent} of {count} events were sent"
        return {
            "idle_pss_mb": idle,
            "broker_away_pss_mb": before["peak_pss_mb"],
            **watch.stop(),
            "records": sent,
            "records_per_s": round((sent - already) / took),
        }


async def _read(bench: Setup, count: int, seconds: float, idle: float) -> dict[str, Any]:
    async with bench.running("workflow") as process:
        watch = Watch(process.pid)

        async def first() -> bool:
            return await bench.number("workflow", APPLIED) > 0

        async def last() -> bool:
            return await bench.number("workflow", APPLIED) >= count

        assert await until(first, 120), "no record was applied"
        started, already = time.monotonic(), await bench.number("workflow", APPLIED)
        await until(last, seconds)
        took, applied = time.monotonic() - started, await bench.number("workflow", APPLIED)
        figures = {"idle_pss_mb": idle, **watch.stop(), "records": applied}
        return {**figures, "records_per_s": round((applied - already) / took), "still_waiting": count - applied}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long workflow is watched, at most")
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hoso-bench-") as folder:
        figures = asyncio.run(measure(Path(folder), arguments.count, arguments.seconds, Console()))
    when = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    result = {"machine": machine(), "measured": when, **figures}
    arguments.json.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
