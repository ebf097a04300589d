"""The footprint of hoso: memory idle and under load, seconds to start, processor seconds per dossier.

Memory is PSS: memory shared by several processes is counted once. PostgreSQL's processes count as one. The stand-ins
for the registry and the SMS gateway are included.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.table import Table

from bench import throughput
from bench.parts import Figures, Options
from bench.testbed import Testbed, open_testbed
from deploy.demo.conduct import pss_mb
from deploy.local.stack import Stack
from shared.contract.events import PARTITIONS, TOPICS

BROKER = "broker"
SETTLE_S = 75.0
"""Idle memory is measured this long after everything is ready. Unused connections are closed after 15 s."""
LOADED = 20_000
"""Number of dossiers in the run under load."""


@dataclass
class Peak:
    """The highest memory by process, and the highest sum of all processes at one time. MB."""

    each: dict[str, float] = field(default_factory=dict)
    together: float = 0.0

    def update(self, now: Mapping[str, float]) -> None:
        self.together = max(self.together, without_broker(now))
        self.each = {name: max(mb, self.each.get(name, 0.0)) for name, mb in now.items()}


async def measure(options: Options) -> Figures:
    """Return MB, seconds, and processor seconds per 1,000 dossiers. Only the start is repeated."""
    ready = [_start_once() for _ in range(options.rounds - 1)]
    started = time.monotonic()
    with open_testbed(with_wal_files=False) as testbed:
        ready.append(time.monotonic() - started)
        await asyncio.sleep(1.0 if options.short else SETTLE_S)
        idle = memory(testbed.stack)
        records, cpu = await _records(testbed), processor(testbed.stack)
        dossiers = 2_000 if options.short else LOADED
        async with _watched(testbed.stack) as peak:
            await throughput.run(testbed, dossiers)
        spent = {name: seconds - cpu[name] for name, seconds in processor(testbed.stack).items()}
        records = await _records(testbed) - records
        broker_mb = memory(testbed.stack)[BROKER] - idle[BROKER]
    return {
        "idle_pss_mb": round(without_broker(idle), 1),
        "loaded_pss_mb": round(peak.together, 1),
        "ready_s": round(statistics.median(ready), 1),
        "loaded_with_dossiers": dossiers,
        "broker_mb_per_million_records": round(broker_mb / records * 1e6),
        "processes": {
            name: {
                "idle_pss_mb": round(mb, 1),
                "loaded_pss_mb": round(peak.each[name], 1),
                "cpu_s_per_1000": round(spent[name] / dossiers * 1000, 3),
            }
            for name, mb in idle.items()
        },
    }


def table(figures: Figures) -> Table:
    """Return a row per process, and one for all without the broker."""
    table = Table("", "idle MB", "loaded MB", "CPU s per 1,000 dossiers", title="Footprint (PSS)")
    rows = figures["processes"]
    for name, row in rows.items():
        table.add_row(name, f"{row['idle_pss_mb']}", f"{row['loaded_pss_mb']}", f"{row['cpu_s_per_1000']:.2f}")
    cpu = sum(row["cpu_s_per_1000"] for row in rows.values())
    table.add_row("all but broker", f"{figures['idle_pss_mb']}", f"{figures['loaded_pss_mb']}", f"{cpu:.2f} (with it)")
    table.caption = (
        f"ready after {figures['ready_s']} s; the broker uses {figures['broker_mb_per_million_records']} MB"
        " per million records"
    )
    return table


def broken(figures: Figures) -> list[str]:
    """Fails at 600 MB, 1.5 times the wanted 400 MB."""
    return ["footprint: over 600 MB idle"] if figures["idle_pss_mb"] > 600 else []


def _start_once() -> float:
    started = time.monotonic()
    with open_testbed(with_wal_files=False):
        return time.monotonic() - started


def memory(stack: Stack) -> dict[str, float]:
    """Return the PSS in MB of each process with its children."""
    # The name gets a space, because pss_mb leaves out a process called "broker".
    return {name: pss_mb({f"{name} ": pid}) for name, pid in stack.pids.items()}


def without_broker(now: Mapping[str, float]) -> float:
    return sum(mb for name, mb in now.items() if name != BROKER)


def processor(stack: Stack) -> dict[str, float]:
    """Return the processor seconds that each process and its children, also the ended ones, have used so far."""
    return {name: _used(pid) / os.sysconf("SC_CLK_TCK") for name, pid in stack.pids.items()}


def _used(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return 0
    # User and system time of the process and of its ended children (proc(5), fields 14 to 17).

    return sum(map(int, fields[11:15])) + sum(_used(int(child)) for child in children)


@contextlib.asynccontextmanager
async def _watched(stack: Stack) -> AsyncIterator[Peak]:
    """Sample the memory twice per second inside the block."""
    peak = Peak()

    async def watch() -> None:
        while True:
            peak.update(await asyncio.to_thread(memory, stack))
            await asyncio.sleep(0.5)

    task = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        peak.update(memory(stack))


async def _records(testbed: Testbed) -> int:
    """Return the number of records on the broker."""
    consumer = AIOKafkaConsumer(bootstrap_servers=testbed.kafka)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for topic in TOPICS for number in range(PARTITIONS)]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()
