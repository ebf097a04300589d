"""What hoso costs a machine: memory at rest and under load, seconds to start, processor seconds for a dossier.

Memory is PSS: what several processes share is counted once. PostgreSQL's processes count as one; the stand-ins for the
registry and the SMS gateway run too and count.
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
from bench.ground import Ground, ground
from bench.parts import Figures, Options
from deploy.demo.conduct import pss_mb
from deploy.local.stack import Stack
from shared.contract.events import PARTITIONS, TOPICS

BROKER = "broker"
SETTLE_S = 75.0
"""At rest: so long after everything was ready. Connections that the start needed are closed after 15 s unused."""
LOADED = 20_000
"""Dossiers of the loaded run."""


@dataclass
class Most:
    """The most that was ever seen, by process, and of all together at one moment."""

    each: dict[str, float] = field(default_factory=dict)
    together: float = 0.0

    def see(self, now: Mapping[str, float]) -> None:
        self.together = max(self.together, without_broker(now))
        self.each = {name: max(mb, self.each.get(name, 0.0)) for name, mb in now.items()}


async def measure(options: Options) -> Figures:
    """MB, seconds, and seconds of processor for 1,000 dossiers. Only the start is repeated."""
    ready = [_start_once() for _ in range(options.rounds - 1)]
    began = time.monotonic()
    with ground(as_after_a_while=False) as place:
        ready.append(time.monotonic() - began)
        await asyncio.sleep(1.0 if options.short else SETTLE_S)
        idle = memory(place.stack)
        records, cpu = await _records(place), processor(place.stack)
        dossiers = 2_000 if options.short else LOADED
        async with _watched(place.stack) as most:
            await throughput.run(place, dossiers)
        spent = {name: seconds - cpu[name] for name, seconds in processor(place.stack).items()}
        records = await _records(place) - records
        broker_mb = memory(place.stack)[BROKER] - idle[BROKER]
    return {
        "idle_pss_mb": round(without_broker(idle), 1),
        "loaded_pss_mb": round(most.together, 1),
        "ready_s": round(statistics.median(ready), 1),
        "loaded_with_dossiers": dossiers,
        "broker_mb_per_million_records": round(broker_mb / records * 1e6),
        "processes": {
            name: {
                "idle_pss_mb": round(mb, 1),
                "loaded_pss_mb": round(most.each[name], 1),
                "cpu_s_per_1000": round(spent[name] / dossiers * 1000, 3),
            }
            for name, mb in idle.items()
        },
    }


def table(figures: Figures) -> Table:
    """Each process, then all of them but the broker."""
    shown = Table("", "idle MB", "loaded MB", "CPU s per 1,000 dossiers", title="Footprint (PSS)")
    rows = figures["processes"]
    for name, row in rows.items():
        shown.add_row(name, f"{row['idle_pss_mb']}", f"{row['loaded_pss_mb']}", f"{row['cpu_s_per_1000']:.2f}")
    cpu = sum(row["cpu_s_per_1000"] for row in rows.values())
    shown.add_row("all but broker", f"{figures['idle_pss_mb']}", f"{figures['loaded_pss_mb']}", f"{cpu:.2f} (with it)")
    shown.caption = (
        f"ready after {figures['ready_s']} s; the broker keeps {figures['broker_mb_per_million_records']} MB"
        " for a million records"
    )
    return shown


def broken(figures: Figures) -> list[str]:
    """By a wide margin: half as much again as the 400 MB that were aimed at."""
    return ["footprint: over 600 MB at rest"] if figures["idle_pss_mb"] > 600 else []


def _start_once() -> float:
    began = time.monotonic()
    with ground(as_after_a_while=False):
        return time.monotonic() - began


def memory(stack: Stack) -> dict[str, float]:
    """PSS in MB of each process and what it started."""
    # Under another name: the demo's own sum leaves out what is called the broker.
    return {name: pss_mb({f"{name} ": pid}) for name, pid in stack.pids.items()}


def without_broker(now: Mapping[str, float]) -> float:
    return sum(mb for name, mb in now.items() if name != BROKER)


def processor(stack: Stack) -> dict[str, float]:
    """Seconds of processor that each process and what it started have used so far, the ended ones too."""
    return {name: _used(pid) / os.sysconf("SC_CLK_TCK") for name, pid in stack.pids.items()}


def _used(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return 0
    # User and system time, its own and that of its ended children (proc(5), fields 14 to 17).
    return sum(map(int, words[11:15])) + sum(_used(int(child)) for child in children)


@contextlib.asynccontextmanager
async def _watched(stack: Stack) -> AsyncIterator[Most]:
    """Looks twice a second inside."""
    most = Most()

    async def watch() -> None:
        while True:
            most.see(await asyncio.to_thread(memory, stack))
            await asyncio.sleep(0.5)

    task = asyncio.create_task(watch())
    try:
        yield most
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        most.see(memory(stack))


async def _records(place: Ground) -> int:
    """How many records the broker holds."""
    consumer = AIOKafkaConsumer(bootstrap_servers=place.kafka)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for topic in TOPICS for number in range(PARTITIONS)]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()
