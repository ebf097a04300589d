"""The outage: the registry is down for eighty minutes in miniature while births arrive; then, how it recovers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.arrivals import arrive, percentile, prepare
from bench.ground import Ground, Stalled, ground, one
from bench.parts import Figures, Options

CAPACITY = 100.0
"""Births a second that the registry can serve, before and after."""
ARRIVING = 40.0
"""Births a second, throughout."""
BEFORE_S = 5.0
LOOK_S = 0.2
FRESH_S = 1.0
"""The backlog is empty when nobody has waited longer than this."""
WEATHER = {"latency_p50_s": 0.02, "latency_p95_s": 0.06, "capacity_per_s": CAPACITY}


@dataclass(frozen=True)
class Look:
    """What idlookup's table said at a moment: how many births waited for their number, and the oldest for how long."""

    at: float
    waiting: int
    oldest_s: float


@dataclass(frozen=True)
class Birth:
    """When its number was wanted and when it was found, seconds since 1970."""

    wanted_at: float
    found_at: float


async def measure(options: Options) -> Figures:
    """Wall seconds; `drain_share` of the registry's capacity."""
    down_s = 10.0 if options.short else 80.0
    with ground() as place:
        return await play(place, down_s)


async def play(place: Ground, down_s: float) -> Figures:
    """Healthy, down for `down_s`, healthy; arrivals end when the backlog is empty."""
    most_s = BEFORE_S + down_s + 4 * down_s * ARRIVING / (CAPACITY - ARRIVING) + 60
    await _weather(place)
    looks: list[Look] = []
    new = prepare(place, round(most_s * ARRIVING), per_second=ARRIVING, births_only=True)
    arriving = asyncio.create_task(arrive(place, new, ARRIVING))
    looking = asyncio.create_task(_look_for_ever(place, looks))
    try:
        await asyncio.sleep(BEFORE_S)
        await _weather(place, down=True)
        await asyncio.sleep(down_s)
        await _weather(place)
        recovered_at = time.time()
        emptied_at = await _empty(looks, recovered_at, recovered_at + most_s)
    finally:
        arriving.cancel()
        looking.cancel()
        await asyncio.gather(arriving, looking, return_exceptions=True)
    return await _figures(place, looks, recovered_at, emptied_at)


async def _weather(place: Ground, *, down: bool = False) -> None:
    await asyncio.to_thread(place.registry, **WEATHER, down=down)


async def _look_for_ever(place: Ground, looks: list[Look]) -> None:
    async with one(place.dsn["idlookup"]) as connection:
        while True:
            row = await connection.fetchrow(
                "select count(*) as waiting, extract(epoch from clock_timestamp() - min(wanted_at))::float8 as oldest"
                " from requests where settled_at is null"
            )
            assert row is not None
            looks.append(Look(time.time(), row["waiting"], row["oldest"] or 0.0))
            await asyncio.sleep(LOOK_S)


async def _empty(looks: Sequence[Look], recovered_at: float, until: float) -> float:
    """When nobody had waited for long any more. Raises Stalled."""
    while time.time() < until:
        if looks and looks[-1].at > recovered_at and looks[-1].oldest_s < FRESH_S:
            return looks[-1].at
        await asyncio.sleep(LOOK_S)
    raise Stalled(f"{looks[-1].waiting} births still wait")


async def _births(place: Ground, timeout_s: float = 60.0) -> list[Birth]:
    """All, in the order they were wanted, once the last has its number. Raises Stalled."""
    deadline = time.monotonic() + timeout_s
    async with one(place.dsn["workflow"]) as workflow, one(place.dsn["idlookup"]) as idlookup:
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
            await asyncio.sleep(LOOK_S)


async def _figures(place: Ground, looks: Sequence[Look], recovered_at: float, emptied_at: float) -> Figures:
    births = await _births(place)
    after = [look for look in looks if recovered_at <= look.at <= emptied_at]
    worst = max(after, key=lambda look: look.oldest_s)
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
    """For each birth: for how long it still waited when one that was wanted later had its number already."""
    result, first_later = [], float("inf")
    for birth in reversed(births):
        result.append(max(birth.found_at - first_later, 0.0))
        first_later = min(first_later, birth.found_at)
    return result[::-1]


def table(figures: Figures) -> Table:
    """The whole story in rows."""
    shown = Table("", "", title=f"The outage: {ARRIVING:.0f} births/s arrive, the registry serves {CAPACITY:.0f}/s")
    for name, value in figures.items():
        shown.add_row(name.replace("_", " "), str(value))
    return shown


def broken(figures: Figures) -> list[str]:
    """By a wide margin: the backlog drains at less than half of what the registry serves."""
    return ["outage: the backlog drains at under half the registry's capacity"] if figures["drain_share"] < 0.5 else []
