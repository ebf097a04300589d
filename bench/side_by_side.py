"""Throughput, side by side: hoso and PostgreSQL's limit for hoso's very rows, in interleaved rounds on one machine."""

from __future__ import annotations

import statistics
from collections import defaultdict

from rich.table import Table

from bench import limit, throughput
from bench.ground import ground
from bench.parts import Figures, Options

WARM_UP = 1_500
"""Dossiers of the warm-up; its rate says how many fill a run's seconds."""


async def measure(options: Options) -> Figures:
    """Dossiers a second, the median of the rounds."""
    seen: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        with ground() as place:
            count = round((await throughput.run(place, WARM_UP)).rate * options.seconds)
            seen["ours"].append((await throughput.run(place, count)).rate)
            seen["postgres_limit"].append(await limit.measure(place, place.spent))
    return {name: round(statistics.median(rates), 1) for name, rates in seen.items()}


def table(figures: Figures) -> Table:
    """Each contender's rate and its ratio to ours."""
    shown = Table("", "dossiers/s", "ours is so many times it", title="Throughput, five machine stages")
    for name, rate in figures.items():
        shown.add_row(name, f"{rate:,.0f}", f"{figures['ours'] / rate:.2f}")
    return shown


def broken(figures: Figures) -> list[str]:
    """By a wide margin: hoso under a tenth of PostgreSQL's limit."""
    if figures["ours"] < 0.1 * figures["postgres_limit"]:
        return ["throughput: ours is under a tenth of PostgreSQL's limit"]
    return []
