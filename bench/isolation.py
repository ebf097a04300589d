"""Isolation: how a bad registry changes the throughput and the wait of dossiers that do not need it.

Each registry state of each round has its own stack: reading from the embedded broker becomes slower with every batch
that it holds (docs/performance.md), so in a shared stack the last state would look worse than the first.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from itertools import chain
from typing import Any

from rich.table import Table

from bench.arrivals import all_recorded, arrive, fill, percentile, prepare, recorded, split
from bench.parts import Figures, Options
from bench.testbed import Testbed, connect, epochs, held_relay, open_testbed, relay_taken

SLOW_FACTOR = 50.0
HEALTHY = {"latency_p50_s": 0.02, "latency_p95_s": 0.06, "capacity_per_s": 1_000.0}
REGISTRY_STATES: dict[str, dict[str, Any]] = {
    "healthy": HEALTHY,
    "slow": {
        "latency_p50_s": HEALTHY["latency_p50_s"] * SLOW_FACTOR,
        "latency_p95_s": HEALTHY["latency_p95_s"] * SLOW_FACTOR,
        "capacity_per_s": HEALTHY["capacity_per_s"] / SLOW_FACTOR,
    },
    "hang": {**HEALTHY, "hang": True},
    "down": {**HEALTHY, "down": True},
}
ARRIVALS_PER_S = 100.0
"""Dossiers per second while the wait is measured: well below the services' capacity."""
WARM_UP = 1_000
"""Dossiers that a new stack processes with a healthy registry before the measured state begins."""
LEAD_S = 2.0
"""Seconds in a registry state before the measurement begins."""


async def measure(options: Options) -> Figures:
    """Return ratios to the healthy state: throughput (median of the rounds) and wait (p95 of all rounds pooled)."""
    backlog, seconds = (1_000, 4.0) if options.short else (6_000, 16.0)
    rates: dict[str, list[float]] = defaultdict(list)
    waits: dict[str, list[list[float]]] = defaultdict(list)
    for number in range(options.rounds):
        order = list(REGISTRY_STATES)
        # Rotate the order from round to round.
        for name in order[number % len(order) :] + order[: number % len(order)]:
            with open_testbed() as testbed:
                await _run(testbed, "healthy", WARM_UP, 2.0)
                rate, round_waits = await _run(testbed, name, backlog, seconds)
            rates[name].append(rate)
            waits[name].append(round_waits)
    return {name: _ratios(rates, waits, name) for name in REGISTRY_STATES if name != "healthy"} | {
        "rounds": {
            name: {
                "rate": [round(rate, 1) for rate in rates[name]],
                "wait_p95_ms": [_p95_ms(round_waits) for round_waits in waits[name]],
                "pooled_wait_p95_ms": _p95_ms(list(chain(*waits[name]))),
            }
            for name in REGISTRY_STATES
        }
    }


def _p95_ms(waits: list[float]) -> float:
    return round(percentile(waits, 0.95) * 1000, 1)


def _ratios(rates: dict[str, list[float]], waits: dict[str, list[list[float]]], name: str) -> Figures:
    rate_ratios = [rate / healthy for rate, healthy in zip(rates[name], rates["healthy"], strict=True)]
    wait_ratios = [
        _p95_ms(each) / _p95_ms(healthy) for each, healthy in zip(waits[name], waits["healthy"], strict=True)
    ]
    pooled = _p95_ms(list(chain(*waits[name]))) / _p95_ms(list(chain(*waits["healthy"])))
    return {
        "throughput_ratio": round(statistics.median(rate_ratios), 3),
        "wait_p95_ratio": round(pooled, 3),
        "throughput_spread": [round(min(rate_ratios), 3), round(max(rate_ratios), 3)],
        "wait_spread": [round(min(wait_ratios), 3), round(max(wait_ratios), 3)],
    }


async def _run(testbed: Testbed, state: str, backlog: int, seconds: float) -> tuple[float, list[float]]:
    """Run in one registry state. Returns, for dossiers without a number: their rate out of a backlog (per second),
    and their waits (seconds) while they arrive one by one."""
    await asyncio.to_thread(testbed.registry, **REGISTRY_STATES[state])
    new = prepare(testbed, round(ARRIVALS_PER_S * (LEAD_S + seconds)), per_second=ARRIVALS_PER_S)
    arrived = (await arrive(testbed, new, ARRIVALS_PER_S)).since(LEAD_S)
    _, others = split(new)
    notified = await all_recorded(testbed.dsn["notify"], "NoticeSent", others)
    committed = await recorded(testbed.dsn["intake"], "DossierSubmitted", others)
    measured = set(arrived.ids)
    waits = [at - committed[one_id] for one_id, at in notified.items() if one_id in measured]
    new = prepare(testbed, backlog)
    async with connect(testbed.dsn["intake"]) as connection:
        async with held_relay(testbed):
            await fill(testbed, new)
            await connection.execute("analyze events")
            before = await epochs(connection)
        started = (await relay_taken(testbed, before)).timestamp()
    _, others = split(new)
    notified = await all_recorded(testbed.dsn["notify"], "NoticeSent", others)
    return len(others) / (max(notified.values()) - started), waits


def table(figures: Figures) -> Table:
    """Return the ratios to healthy and their spread over the rounds."""
    table = Table(
        "the registry is", "throughput", "", "wait p95", "", title="Dossiers without a number: ratio to healthy"
    )
    for name in REGISTRY_STATES:
        if name != "healthy":
            row = figures[name]
            spreads = [f"{low:.2f} - {high:.2f}" for low, high in (row["throughput_spread"], row["wait_spread"])]
            table.add_row(
                name, f"{row['throughput_ratio']:.2f}", spreads[0], f"{row['wait_p95_ratio']:.2f}", spreads[1]
            )
    return table


def broken(figures: Figures) -> list[str]:
    """Fails when a bad registry halves the throughput of the other dossiers."""
    return [
        f"isolation: with the registry in state {name!r} the other dossiers have under half their throughput"
        for name in REGISTRY_STATES
        if name != "healthy" and figures[name]["throughput_ratio"] < 0.5
    ]
