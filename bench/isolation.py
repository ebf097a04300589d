"""Isolation: what the registry's weather does to dossiers that do not need it: their throughput and their wait."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from typing import Any

from rich.table import Table

from bench.arrivals import all_recorded, arrive, fill, percentile, prepare, recorded, split
from bench.ground import Ground, Stalled, epochs, ground, held_relay, one, relay_taken
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
SHOWN = 2.0
"""Seconds in a weather before anything is measured: its first calls have met it."""


async def measure(options: Options) -> Figures:
    """The median of the rounds' ratios to the same round's healthy run."""
    backlog, seconds = (1_000, 4.0) if options.short else (6_000, 16.0)
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ground() as place:
        await _round(place, "healthy", 2_000, 3.0)
        for number in range(options.rounds):
            order = list(WEATHERS)
            # Each weather stands once in each place as the rounds go on.
            for name in order[number % len(order) :] + order[: number % len(order)]:
                rate, wait_s = await _round(place, name, backlog, seconds)
                seen[name]["rate"].append(rate)
                seen[name]["wait_p95_ms"].append(wait_s * 1000)
    return {name: _ratios(seen["healthy"], seen[name]) for name in WEATHERS if name != "healthy"} | {
        "rounds": {
            name: {key: [round(v, 1) for v in values] for key, values in seen[name].items()} for name in WEATHERS
        }
    }


def _ratios(healthy: dict[str, list[float]], seen: dict[str, list[float]]) -> Figures:
    rates = [mine / usual for mine, usual in zip(seen["rate"], healthy["rate"], strict=True)]
    waits = [mine / usual for mine, usual in zip(seen["wait_p95_ms"], healthy["wait_p95_ms"], strict=True)]
    return {
        "throughput_ratio": round(statistics.median(rates), 3),
        "wait_p95_ratio": round(statistics.median(waits), 3),
        "throughput_spread": [round(min(rates), 3), round(max(rates), 3)],
        "wait_spread": [round(min(waits), 3), round(max(waits), 3)],
    }


async def _round(place: Ground, weather: str, backlog: int, seconds: float) -> tuple[float, float]:
    """(the others' dossiers a second out of a backlog, p95 of their waits in seconds), then all is cleared up."""
    wants = await _wanted(place)
    await asyncio.to_thread(place.registry, **WEATHERS[weather])
    new = prepare(place, round(ARRIVING * (SHOWN + seconds)))
    arrived = (await arrive(place, new, ARRIVING)).since(SHOWN)
    births, others = split(new)
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
    more, others = split(new)
    told = await all_recorded(place.dsn["notify"], "NoticeSent", others)
    rate = len(others) / (max(told.values()) - started)
    await asyncio.to_thread(place.registry, **USUAL)
    await _clear(place, wants + len(births) + len(more))
    return rate, percentile(waits, 0.95)


async def _wanted(place: Ground) -> int:
    async with one(place.dsn["workflow"]) as connection:
        return int(await connection.fetchval("select count(*) from events where type = 'IdNumberWanted'"))


async def _clear(place: Ground, births: int, timeout_s: float = 120.0) -> None:
    """Wait until every birth has its number: the next round must not pay for this one. Raises Stalled."""
    deadline = time.monotonic() + timeout_s
    async with one(place.dsn["workflow"]) as connection:
        while (done := await connection.fetchval("select count(*) from events where type = 'IdNumberIssued'")) < births:
            if time.monotonic() > deadline:
                raise Stalled(f"{births - done} births have no number")
            await asyncio.sleep(0.3)


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
