"""The outage: the registry is down for 80 seconds, in place of 80 minutes, while births arrive; then the recovery."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.arrivals import arrive, percentile, prepare
from bench.parts import Figures, Options
from bench.testbed import Stalled, Testbed, connect, open_testbed

CAPACITY = 100.0
"""Births per second that the registry can serve, before and after the outage."""
ARRIVALS_PER_S = 40.0
"""Births that arrive per second, all the time."""
BEFORE_S = 5.0
SAMPLE_S = 0.2
EMPTY_S = 1.0
"""The backlog counts as empty when no birth has waited longer than this."""
HEALTHY = {"latency_p50_s": 0.02, "latency_p95_s": 0.06, "capacity_per_s": CAPACITY}


@dataclass(frozen=True)
class Sample:
    """idlookup's table at one time: the number of births that wait for a number, and the oldest wait in seconds."""

    at: float
    waiting: int
    oldest_s: float


@dataclass(frozen=True)
class Birth:
    """When a birth's number was wanted and when it was found, in seconds since 1970."""

    wanted_at: float
    found_at: float


async def measure(options: Options) -> Figures:
    """Return the figures: wall seconds, and `drain_share` of the registry's capacity."""
    down_s = 10.0 if options.short else 80.0
    with open_testbed() as testbed:
        return await run(testbed, down_s)


async def run(testbed: Testbed, down_s: float) -> Figures:
    """Run with the registry healthy, down for `down_s`, and healthy again until the backlog is empty."""
    max_s = BEFORE_S + down_s + 4 * down_s * ARRIVALS_PER_S / (CAPACITY - ARRIVALS_PER_S) + 60
    await _set_registry(testbed)
    samples: list[Sample] = []
    new = prepare(testbed, round(max_s * ARRIVALS_PER_S), per_second=ARRIVALS_PER_S, births_only=True)
    arriving = asyncio.create_task(arrive(testbed, new, ARRIVALS_PER_S))
    sampling = asyncio.create_task(_sample_forever(testbed, samples))
    try:
        await asyncio.sleep(BEFORE_S)
        await _set_registry(testbed, down=True)
        await asyncio.sleep(down_s)
        await _set_registry(testbed)
        recovered_at = time.time()
        emptied_at = await _until_empty(samples, recovered_at, recovered_at + max_s)
    finally:
        arriving.cancel()
        sampling.cancel()
        await asyncio.gather(arriving, sampling, return_exceptions=True)
    return await _figures(testbed, samples, recovered_at, emptied_at)


async def _set_registry(testbed: Testbed, *, down: bool = False) -> None:
    await asyncio.to_thread(testbed.registry, **HEALTHY, down=down)


async def _sample_forever(testbed: Testbed, samples: list[Sample]) -> None:
    async with connect(testbed.dsn["idlookup"]) as connection:
        while True:
            row = await connection.fetchrow(
                "select count(*) as waiting, extract(epoch from clock_timestamp() - min(wanted_at))::float8 as oldest"
                " from requests where settled_at is null"
            )
            assert row is not None
            samples.append(Sample(time.time(), row["waiting"], row["oldest"] or 0.0))
            await asyncio.sleep(SAMPLE_S)


async def _until_empty(samples: Sequence[Sample], recovered_at: float, until: float) -> float:
    """Wait until the backlog is empty and return that time. Raises Stalled."""
    while time.time() < until:
        if samples and samples[-1].at > recovered_at and samples[-1].oldest_s < EMPTY_S:
            return samples[-1].at
        await asyncio.sleep(SAMPLE_S)
    raise Stalled(f"{samples[-1].waiting} births still wait")


async def _births(testbed: Testbed, timeout_s: float = 60.0) -> list[Birth]:
    """Wait until every birth has its number. Returns all in the order in which they were wanted. Raises Stalled."""
    deadline = time.monotonic() + timeout_s
    async with connect(testbed.dsn["workflow"]) as workflow, connect(testbed.dsn["idlookup"]) as idlookup:
        while True:
            wanted = await workflow.fetchval("select count(*) from events where type = 'IdNumberWanted'")
            rows: list[Any] = await idlookup.fetch(
                "select extract(epoch from r.wanted_at)::float8, extract(epoch from e.recorded_at)::float8"
                " from requests r join events e on e.dossier_id = r.dossier_id and e.type = 'IdNumberFound' order by 1"
            )
            if wanted == len(rows):
                return [Birth(*row) for row in rows]
            if time.monotonic() > deadline:
                raise Stalled(f"{wanted - len(rows)} births have no number")
            await asyncio.sleep(SAMPLE_S)


async def _figures(testbed: Testbed, samples: Sequence[Sample], recovered_at: float, emptied_at: float) -> Figures:
    births = await _births(testbed)
    after = [sample for sample in samples if recovered_at <= sample.at <= emptied_at]
    worst = max(after, key=lambda sample: sample.oldest_s)
    drained = sum(recovered_at <= birth.found_at <= emptied_at for birth in births)
    waits = [birth.found_at - birth.wanted_at for birth in births]
    overtakings = overtaken([birth for birth in births if birth.found_at >= recovered_at])
    return {
        "age_falls_after_s": round(worst.at - recovered_at, 2),
        "drain_share": round(drained / (CAPACITY * (emptied_at - recovered_at)), 3),
        "births": len(births),
        "waiting_at_recovery": after[0].waiting,
        "emptied_after_s": round(emptied_at - recovered_at, 2),
        "wait_s": {
            name: round(percentile(waits, share), 2) for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1))
        },
        "overtaken_for_s": round(max(overtakings), 2),
        "by_more_than_a_second": sum(seconds > 1.0 for seconds in overtakings),
    }


def overtaken(births: Sequence[Birth]) -> list[float]:
    """Return, for each birth, how long it still waited after a birth wanted later had its number."""
    result, first_later = [], float("inf")
    for birth in reversed(births):
        result.append(max(birth.found_at - first_later, 0.0))
        first_later = min(first_later, birth.found_at)
    return result[::-1]


def table(figures: Figures) -> Table:
    """Return one row per figure."""
    table = Table(
        "", "", title=f"The outage: {ARRIVALS_PER_S:.0f} births/s arrive, the registry serves {CAPACITY:.0f}/s"
    )
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), str(value))
    return table


def broken(figures: Figures) -> list[str]:
    """Fails when the backlog drains at less than half of the registry's capacity."""
    return ["outage: the backlog drains at under half the registry's capacity"] if figures["drain_share"] < 0.5 else []
