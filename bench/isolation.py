"""Isolation: what the registry's weather does to dossiers that do not need it: their throughput and their wait.

Every weather of every round has a stack of its own: the embedded broker's reading costs more with every batch that it
holds (docs/performance.md), and in one stack for all the last weather would pay for the first.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from itertools import chain
from typing import Any

from rich.table import Table

from bench.arrivals import all_recorded, arrive, fill, percentile, prepare, recorded, split
from bench.ground import Ground, epochs, ground, held_relay, one, relay_taken
from bench.parts import Figures, Options

SLOWER = 50.0
USUAL = {"latency_p50_s": 0.02, "latency_p95_s": 0.06, "capacity_per_s": 1_000.0}
WEATHERS: dict[str, dict[str, Any]] = {
    "healthy": USUAL,
    "slow": {
        "latency_p50_s": USUAL["latency_p50_s"] * SLOWER,
        "latency_p95_s": USUAL["latency_p95_s"] * SLOWER,
        "capacity_per_s": USUAL["capacity_per_s"] / SLOWER,
    },
    "hang": {**USUAL, "hang": True},
    "down": {**USUAL, "down": True},
}
ARRIVING = 100.0
"""Dossiers a second where the wait is measured: well under what the services can do."""
WARM_UP = 1_000
"""Dossiers that a new stack has done, with a healthy registry, before a weather comes."""
SHOWN = 2.0
"""Seconds in a weather before anything is measured: its first calls have met it."""


async def measure(options: Options) -> Figures:
    """Ratios to healthy: throughput, the median of the rounds'; wait, of the p95 of all rounds' waits together."""
    backlog, seconds = (1_000, 4.0) if options.short else (6_000, 16.0)
    rates: dict[str, list[float]] = defaultdict(list)
    waits: dict[str, list[list[float]]] = defaultdict(list)
    for number in range(options.rounds):
        order = list(WEATHERS)
        # Each weather stands once in each place as the rounds go on.
        for name in order[number % len(order) :] + order[: number % len(order)]:
            with ground() as place:
                await _run(place, "healthy", WARM_UP, 2.0)
                rate, waited = await _run(place, name, backlog, seconds)
            rates[name].append(rate)
            waits[name].append(waited)
    return {name: _ratios(rates, waits, name) for name in WEATHERS if name != "healthy"} | {
        "rounds": {
            name: {
                "rate": [round(rate, 1) for rate in rates[name]],
                "wait_p95_ms": [_p95_ms(waited) for waited in waits[name]],
                "pooled_wait_p95_ms": _p95_ms(list(chain(*waits[name]))),
            }
            for name in WEATHERS
        }
    }


def _p95_ms(waited: list[float]) -> float:
    return round(percentile(waited, 0.95) * 1000, 1)


def _ratios(rates: dict[str, list[float]], waits: dict[str, list[list[float]]], name: str) -> Figures:
    faster = [mine / usual for mine, usual in zip(rates[name], rates["healthy"], strict=True)]
    longer = [_p95_ms(mine) / _p95_ms(usual) for mine, usual in zip(waits[name], waits["healthy"], strict=True)]
    pooled = _p95_ms(list(chain(*waits[name]))) / _p95_ms(list(chain(*waits["healthy"])))
    return {
        "throughput_ratio": round(statistics.median(faster), 3),
        "wait_p95_ratio": round(pooled, 3),
        "throughput_spread": [round(min(faster), 3), round(max(faster), 3)],
        "wait_spread": [round(min(longer), 3), round(max(longer), 3)],
    }


async def _run(place: Ground, weather: str, backlog: int, seconds: float) -> tuple[float, list[float]]:
    """(the others' dossiers a second out of a backlog, their waits in seconds while they arrive one by one)."""
    await asyncio.to_thread(place.registry, **WEATHERS[weather])
    new = prepare(place, round(ARRIVING * (SHOWN + seconds)), per_second=ARRIVING)
    arrived = (await arrive(place, new, ARRIVING)).since(SHOWN)
    _, others = split(new)
    told = await all_recorded(place.dsn["notify"], "NoticeSent", others)
    committed = await recorded(place.dsn["intake"], "DossierSubmitted", others)
    measured = set(arrived.ids)
    waits = [at - committed[one_id] for one_id, at in told.items() if one_id in measured]
    new = prepare(place, backlog)
    async with one(place.dsn["intake"]) as connection:
        async with held_relay(place):
            await fill(place, new)
            await connection.execute("analyze events")
            before = await epochs(connection)
        started = (await relay_taken(place, before)).timestamp()
    _, others = split(new)
    told = await all_recorded(place.dsn["notify"], "NoticeSent", others)
    return len(others) / (max(told.values()) - started), waits


def table(figures: Figures) -> Table:
    """Ratios to healthy, and their spread over the rounds."""
    shown = Table("the registry is", "throughput", "", "wait p95", "", title="The others' dossiers, ratio to healthy")
    for name in WEATHERS:
        if name != "healthy":
            row = figures[name]
            spreads = [f"{low:.2f} - {high:.2f}" for low, high in (row["throughput_spread"], row["wait_spread"])]
            shown.add_row(
                name, f"{row['throughput_ratio']:.2f}", spreads[0], f"{row['wait_p95_ratio']:.2f}", spreads[1]
            )
    return shown


def broken(figures: Figures) -> list[str]:
    """By a wide margin: the registry takes more than half of the others' throughput."""
    return [
        f"isolation: with a registry that is {name} the others have under half their throughput"
        for name in WEATHERS
        if name != "healthy" and figures[name]["throughput_ratio"] < 0.5
    ]
