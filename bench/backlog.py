"""A million records waiting on Apache Kafka, a million events waiting for it: how much memory does that take?

`python -m bench.backlog [--count N] [--seconds S]` starts a PostgreSQL and one Apache Kafka of its own (Java and Maven)
and writes `results/backlog.json`. First the broker is away while intake's log fills; then intake sends it all, and
workflow reads from the oldest record for so many seconds.
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

from bench.ground import one
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
COPIED = 5_000
LOOK_S = 0.1
SENT = f"select coalesce(sum(last_offset + 1), 0)::bigint from broker_marks where topic = '{SUBMISSIONS}'"
HEARD = f"select coalesce(sum(last), 0)::bigint from heads where topic = '{SUBMISSIONS}'"


class Watch:
    """Looks at a process's memory until told to stop. MB."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak = pid, 0.0
        self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            self.peak = max(self.peak, pss_mb({"process": self.pid}))
            await asyncio.sleep(LOOK_S)

    def stop(self) -> dict[str, float]:
        self._task.cancel()
        return {"peak_pss_mb": round(self.peak, 1), "peak_rss_mb": round(peak_rss_mb(self.pid), 1)}


def peak_rss_mb(pid: int) -> float:
    """The most memory a process ever had at once, as the kernel kept it. MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def values(kinds: int = 1_000, fat: int = 0) -> list[bytes]:
    """So many different DossierSubmitted as JSON, each with `fat` bytes more in its sealed subject."""
    documents = shipped()
    examples = {code: document.example for code, document in documents.items()}
    versions = {code: document.version for code, document in documents.items()}
    sealer = Sealer("k1:" + "A" * 43 + "=")
    rows = submissions(examples, versions, sealer, datetime.now(UTC), range(1, kinds + 1))
    more = "x" * fat
    return [
        row.fact.model_copy(update={"sealed_subject": row.fact.sealed_subject + more}).model_dump_json().encode()
        for row in rows
    ]


async def fill(dsn: str, count: int, data: Sequence[bytes]) -> None:
    """`count` unsent events of as many dossiers, as intake would have staged them."""

    def rows() -> Iterator[tuple[Any, ...]]:
        for value in cycle(data):
            dossier_id = new_id()
            yield lane_of(str(dossier_id)), SUBMISSIONS, dossier_id, 1, new_id(), "DossierSubmitted", new_id(), value

    made = rows()
    columns = ["lane", "topic", "dossier_id", "sequence", "ce_id", "type", "trace_id", "data"]
    async with one(dsn) as connection:
        for first in range(0, count, COPIED):
            part = list(islice(made, min(COPIED, count - first)))
            await connection.copy_records_to_table("events", records=part, columns=columns)


async def until(condition: Callable[[], Awaitable[Any]], timeout_s: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if await condition():
            return True
        await asyncio.sleep(LOOK_S)
    return False


class Bench:
    """The processes of one measurement."""

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
        """A service's process, ended afterwards."""
        environment = self._environment.plain() | self._environment.service(name, free_port(), self.dsn[name])
        command = [sys.executable, "-m", f"services.{name}.main"]
        process = spawn(command, log=self._folder / f"{name}.log", env=environment, cwd=Path(__file__).parents[1])
        try:
            yield process
        finally:
            await asyncio.to_thread(end, process, 15, 20)

    async def number(self, name: str, query: str) -> int:
        try:
            async with one(self.dsn[name]) as connection:
                return int(await connection.fetchval(query))
        except (asyncpg.PostgresError, OSError):
            return 0

    async def idle(self, name: str) -> float:
        """PSS of a service that has migrated its database and has nothing to do."""
        async with self.running(name) as process:
            found = await until(lambda: self.number(name, "select count(*) from pg_class where relname = 'heads'"), 60)
            assert found, f"{name} did not start"
            await asyncio.sleep(5)
            return round(pss_mb({name: process.pid}), 1)


async def measure(folder: Path, count: int, seconds: float, console: Console) -> dict[str, Any]:
    """The figures of both halves. `seconds` is how long workflow is watched at most."""
    place = Bench(folder)
    await asyncio.to_thread(place.server.start)
    try:
        place.dsn = place.server.ensure_service_databases(["intake", "workflow"])
        idle = {name: await place.idle(name) for name in ("intake", "workflow")}
        begun = time.monotonic()
        await fill(place.dsn["intake"], count, values())
        console.print(f"{count:,} events stored in {time.monotonic() - begun:.0f} s; idle: {idle}")
        sending = await _send(place, count, idle["intake"])
        console.print(f"intake: {sending}")
        reading = await _read(place, count, seconds, idle["workflow"])
        console.print(f"workflow: {reading}")
    finally:
        await place.kafka.stop()
        await asyncio.to_thread(place.server.destroy)
    return {"count": count, "relay": sending, "consumer": reading}


async def _send(place: Bench, count: int, idle: float) -> dict[str, Any]:
    async with place.running("intake") as process:
        waiting = Watch(process.pid)
        await asyncio.sleep(10)
        before = waiting.stop()
        await place.kafka.start()
        watch = Watch(process.pid)

        async def first() -> bool:
            return await place.number("intake", SENT) > 0

        async def last() -> bool:
            return await place.number("intake", SENT) >= count

        assert await until(first, 60), "nothing is sent"
        begun, already = time.monotonic(), await place.number("intake", SENT)
        done = await until(last, 600)
        took, sent = time.monotonic() - begun, await place.number("intake", SENT)
        assert done, f"only {sent} sent"
        return {
            "idle_pss_mb": idle,
            "broker_away_pss_mb": before["peak_pss_mb"],
            **watch.stop(),
            "records": sent,
            "records_per_s": round((sent - already) / took),
        }


async def _read(place: Bench, count: int, seconds: float, idle: float) -> dict[str, Any]:
    async with place.running("workflow") as process:
        watch = Watch(process.pid)

        async def first() -> bool:
            return await place.number("workflow", HEARD) > 0

        async def last() -> bool:
            return await place.number("workflow", HEARD) >= count

        assert await until(first, 120), "nothing is heard"
        begun, already = time.monotonic(), await place.number("workflow", HEARD)
        await until(last, seconds)
        took, heard = time.monotonic() - begun, await place.number("workflow", HEARD)
        figures = {"idle_pss_mb": idle, **watch.stop(), "records": heard}
        return {**figures, "records_per_s": round((heard - already) / took), "still_waiting": count - heard}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long workflow is watched")
    parser.add_argument("--json", type=Path, default=RESULT)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hoso-bench-") as folder:
        figures = asyncio.run(measure(Path(folder), said.count, said.seconds, Console()))
    when = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    result = {"machine": machine(), "measured": when, **figures}
    said.json.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
