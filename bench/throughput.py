"""Throughput of hoso itself: from submissions that lie committed in intake's log to the last NoticeSent."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime

from bench.ground import Ground, Stalled, epochs, held_relay, one, relay_taken
from bench.workload import BIRTHS

FIRST = 1_500
WARM_UP_S = 4.0
"""How long a warm-up takes, by the rate of its first dossiers."""


@dataclass(frozen=True)
class Run:
    """One measured run. `births_s`: seconds to the last number; `seconds` ends with whichever came last."""

    dossiers: int
    seconds: float
    births_s: float

    @property
    def rate(self) -> float:
        return self.dossiers / self.seconds


async def newest(place: Ground, service: str) -> int:
    """The id of the last event a service has recorded."""
    async with one(place.dsn[service]) as connection:
        return int(
            await connection.fetchval(
                "select coalesce(max((select max(id) from events e where e.lane = l.lane)), 0) from lanes l"
            )
        )


async def recorded(place: Ground, service: str, type: str, after: int) -> tuple[int, datetime]:
    """How many events of a type a service has recorded after an id, and when the last; read lane by lane from the
    index, so that it costs no more when millions lie before."""
    async with one(place.dsn[service]) as connection:
        row = await connection.fetchrow(
            "select count(*) as many, max(e.recorded_at) as last from lanes l"
            " cross join lateral (select * from events e where e.lane = l.lane and e.id > $1 order by e.id) e"
            " where e.type = $2",
            after,
            type,
        )
    assert row is not None
    return row["many"], row["last"]


async def run(place: Ground, count: int, timeout_s: float = 300.0) -> Run:
    """Fill intake's log with `count` dossiers while its relay holds no lane, let it go, wait for the end of all."""
    notify, idlookup = await newest(place, "notify"), await newest(place, "idlookup")
    async with one(place.dsn["intake"]) as connection:
        async with held_relay(place):
            await place.fill(count)
            await connection.execute("analyze events")
            before = await epochs(connection)
        started = await relay_taken(place, before)
    births = place_births(place.spent - count, count)
    deadline = time.monotonic() + timeout_s
    while True:
        # Counting reads every event of the run: only once there are enough ids for it to be over.
        if await newest(place, "notify") >= notify + count and await newest(place, "idlookup") >= idlookup + births:
            notices, last = await recorded(place, "notify", "NoticeSent", notify)
            numbers, last_number = await recorded(place, "idlookup", "IdNumberFound", idlookup)
            if notices >= count and numbers >= births:
                break
        if time.monotonic() > deadline:
            notices, _ = await recorded(place, "notify", "NoticeSent", notify)
            raise Stalled(f"{notices} of {count} notices after {timeout_s} s")
        await asyncio.sleep(0.3)
    return Run(count, (max(last, last_number) - started).total_seconds(), (last_number - started).total_seconds())


async def warm_up(place: Ground, seconds: float) -> float:
    """Dossiers/s of a run of a few seconds, which says how many fill `seconds`.

    A shorter one is mostly beginning and end: by its rate a run was over after half of its time.
    """
    rate = (await run(place, FIRST)).rate
    return (await run(place, tens(rate * min(WARM_UP_S, seconds)))).rate


def tens(count: float) -> int:
    """Whole tens, one birth in each: then everybody's rows a dossier are exactly the same."""
    return max(round(count / BIRTHS), 1) * BIRTHS


def place_births(before: int, count: int) -> int:
    """How many of the dossiers before+1 … before+count are births."""
    return (before + count) // BIRTHS - before // BIRTHS
