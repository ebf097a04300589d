"""Scale-out: one process of each service and two of each on the same machine, and what limits the throughput."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict

from rich.table import Table

from bench import throughput
from bench.footprint import processor
from bench.parts import Figures, Options
from bench.testbed import SERVICES, Testbed, open_testbed

FULL = 0.9
"""A processor, or a process that can use only one, is the limit when it is busy for this share of the time."""


async def measure(options: Options) -> Figures:
    """Return dossiers/s and how busy each process was: medians of interleaved rounds."""
    rates: dict[str, list[float]] = defaultdict(list)
    busy: dict[str, dict[str, float]] = {}
    with open_testbed() as testbed:
        for _ in range(options.rounds):
            for kind, instances in (("one", ()), ("two", SERVICES)):
                added = [testbed.stack.add_instance(name) for name in instances]
                count = throughput.tens(await throughput.warm_up(testbed, options.seconds) * options.seconds)
                rate, busy[kind] = await _run(testbed, count)
                rates[kind].append(rate)
                for name in added:
                    testbed.stack.remove_instance(name)
    medians = {kind: round(statistics.median(rounds), 1) for kind, rounds in rates.items()}
    limits = {kind: _limit(shares) for kind, shares in busy.items()}
    return {**medians, "processors": os.cpu_count(), "busy": busy, "limited_by": limits}


async def _run(testbed: Testbed, count: int) -> tuple[float, dict[str, float]]:
    """Return dossiers/s, and how many processors each process used meanwhile (including the filling of the log)."""
    before, started = processor(testbed.stack), time.monotonic()
    rate = (await throughput.run(testbed, count)).rate
    seconds = time.monotonic() - started
    shares = {name: round((used - before[name]) / seconds, 2) for name, used in processor(testbed.stack).items()}
    return rate, shares


def _limit(shares: dict[str, float]) -> str:
    processors = os.cpu_count() or 1
    if sum(shares.values()) >= FULL * processors:
        return f"all {processors} processors are busy"
    # PostgreSQL and the broker can use several processors.
    single = {name: share for name, share in shares.items() if name not in ("postgres", "broker")}
    name = max(single, key=lambda name: single[name])
    return f"{name} is busy alone" if single[name] >= FULL else "waiting: neither a processor nor a process is full"


def table(figures: Figures) -> Table:
    """Return one row for one process of each service and one for two."""
    table = Table("processes of each service", "dossiers/s", "ratio", "limited by", "busiest", title="Scale-out")
    for kind in ("one", "two"):
        shares = sorted(figures["busy"][kind].items(), key=lambda item: -item[1])[:4]
        busiest = ", ".join(f"{name} {share:.2f}" for name, share in shares)
        ratio = f"{figures[kind] / figures['one']:.2f}"
        table.add_row(kind, f"{figures[kind]:,.0f}", ratio, figures["limited_by"][kind], busiest)
    return table


def broken(figures: Figures) -> list[str]:
    """Fails when two processes of each service have less than half the throughput of one."""
    return ["scale: a second process halves the throughput"] if figures["two"] < 0.5 * figures["one"] else []
