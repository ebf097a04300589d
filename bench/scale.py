"""One process of each service and two of each, on the same machine: what a second one brings, and what limits next."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict

from rich.table import Table

from bench import throughput
from bench.footprint import processor
from bench.ground import SERVICES, Ground, ground
from bench.parts import Figures, Options

FULL = 0.9
"""A processor, or a process that can use no more than one, that is busy for so much of the time is the limit."""


async def measure(options: Options) -> Figures:
    """Dossiers/s and how busy each process was; medians of interleaved rounds."""
    rates: dict[str, list[float]] = defaultdict(list)
    busy: dict[str, dict[str, float]] = {}
    with ground() as place:
        for _ in range(options.rounds):
            for kind, instances in (("one", ()), ("two", SERVICES)):
                added = [place.stack.add_instance(name) for name in instances]
                count = throughput.tens(await throughput.warm_up(place, options.seconds) * options.seconds)
                rate, busy[kind] = await _run(place, count)
                rates[kind].append(rate)
                for name in added:
                    place.stack.remove_instance(name)
    medians = {kind: round(statistics.median(found), 1) for kind, found in rates.items()}
    limits = {kind: _limit(shares) for kind, shares in busy.items()}
    return {**medians, "processors": os.cpu_count(), "busy": busy, "limited_by": limits}


async def _run(place: Ground, count: int) -> tuple[float, dict[str, float]]:
    """Dossiers/s, and of how many processors each process made use meanwhile (filling the log included)."""
    before, began = processor(place.stack), time.monotonic()
    rate = (await throughput.run(place, count)).rate
    seconds = time.monotonic() - began
    shares = {name: round((used - before[name]) / seconds, 2) for name, used in processor(place.stack).items()}
    return rate, shares


def _limit(shares: dict[str, float]) -> str:
    processors = os.cpu_count() or 1
    if sum(shares.values()) >= FULL * processors:
        return f"all {processors} processors are busy"
    # PostgreSQL and the broker spread over several.
    single = {name: share for name, share in shares.items() if name not in ("postgres", "broker")}
    name = max(single, key=lambda name: single[name])
    return f"{name} is busy alone" if single[name] >= FULL else "waiting: neither a processor nor a process is full"


def table(figures: Figures) -> Table:
    """One row for one process of each service, one for two."""
    shown = Table("processes of each service", "dossiers/s", "ratio", "limited by", "busiest", title="Scale-out")
    for kind in ("one", "two"):
        shares = sorted(figures["busy"][kind].items(), key=lambda item: -item[1])[:4]
        busiest = ", ".join(f"{name} {share:.2f}" for name, share in shares)
        ratio = f"{figures[kind] / figures['one']:.2f}"
        shown.add_row(kind, f"{figures[kind]:,.0f}", ratio, figures["limited_by"][kind], busiest)
    return shown


def broken(figures: Figures) -> list[str]:
    """By a wide margin: two processes of each service do less than half of what one does."""
    return ["scale: a second process halves the throughput"] if figures["two"] < 0.5 * figures["one"] else []
