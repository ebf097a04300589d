"""Throughput of hoso itself: from submissions that lie committed in intake's log to the last NoticeSent."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime

from bench.ground import Ground, Stalled, epochs, held_relay, one, relay_taken
from bench.workload import BIRTHS


@dataclass(frozen=True)
class Run:
    """One measured run. `births_s`: seconds to the last number; `seconds` ends with whichever came last."""

    dossiers: int
    seconds: float
    births_s: float

    @property
    def rate(self) -> float:
        return self.dossiers / self.seconds


async def told(place: Ground) -> int:
    async with one(place.dsn["notify"]) as connection:
        return int(await connection.fetchval("select count(*) from events where type = 'NoticeSent'"))


async def numbers(place: Ground) -> int:
    async with one(place.dsn["idlookup"]) as connection:
        return int(await connection.fetchval("select count(*) from events where type = 'IdNumberFound'"))


async def run(place: Ground, count: int, timeout_s: float = 300.0) -> Run:
    """Fill intake's log with `count` dossiers while its relay holds no lane, let it go, wait for the end of all."""
    notices, found = await told(place), await numbers(place)
    async with one(place.dsn["intake"]) as connection:
        async with held_relay(place):
            await place.fill(count)
            await connection.execute("analyze events")
            before = await epochs(connection)
        started = await relay_taken(place, before)
    births = place_births(place.spent - count, count)
    deadline = time.monotonic() + timeout_s
    while (have := await told(place)) < notices + count or await numbers(place) < found + births:
        if time.monotonic() > deadline:
            raise Stalled(f"{have - notices} of {count} notices after {timeout_s} s")
        await asyncio.sleep(0.3)
    last, last_number = await _ends(place)
    return Run(count, (max(last, last_number) - started).total_seconds(), (last_number - started).total_seconds())


def place_births(before: int, count: int) -> int:
    """How many of the dossiers before+1 … before+count are births."""
    return (before + count) // BIRTHS - before // BIRTHS


async def _ends(place: Ground) -> tuple[datetime, datetime]:
    async with one(place.dsn["notify"]) as connection:
        last = await connection.fetchval("select max(recorded_at) from events where type = 'NoticeSent'")
    async with one(place.dsn["idlookup"]) as connection:
        number = await connection.fetchval("select max(recorded_at) from events where type = 'IdNumberFound'")
    assert isinstance(last, datetime)
    assert isinstance(number, datetime)
    return last, number
