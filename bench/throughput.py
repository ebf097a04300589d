"""Throughput of hoso itself: from submissions committed in intake's log to the last NoticeSent."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime

from bench.testbed import Stalled, Testbed, connect, epochs, held_relay, relay_taken
from bench.workload import BIRTHS

FIRST_DOSSIERS = 1_500
WARM_UP_S = 4.0
"""Wanted length of a warm-up, estimated from the rate of its first dossiers."""


@dataclass(frozen=True)
class Run:
    """One measured run. `births_s`: seconds to the last number; `seconds`: to the last notice or number."""

    dossiers: int
    seconds: float
    births_s: float

    @property
    def rate(self) -> float:
        return self.dossiers / self.seconds


async def newest(testbed: Testbed, service: str) -> int:
    """Return the id of the last event that a service has recorded."""
    async with connect(testbed.dsn[service]) as connection:
        return int(
            await connection.fetchval(
                "select coalesce(max((select max(id) from events e where e.lane = l.lane)), 0) from lanes l"
            )
        )


async def recorded(testbed: Testbed, service: str, type: str, after: int) -> tuple[int, datetime]:
    """Return how many events of a type a service has recorded after an id, and the time of the last one.

    Reads the index lane by lane, so that the cost does not grow with the events before that id.
    """
    async with connect(testbed.dsn[service]) as connection:
        row = await connection.fetchrow(
            "select count(*) as many, max(e.recorded_at) as last from lanes l"
            " cross join lateral (select * from events e where e.lane = l.lane and e.id > $1 order by e.id) e"
            " where e.type = $2",
            after,
            type,
        )
    assert row is not None
    return row["many"], row["last"]


async def run(testbed: Testbed, count: int, timeout_s: float = 300.0) -> Run:
    """Fill intake's log with `count` dossiers while its relay owns no lane, start the relay, and wait for the end."""
    notify, idlookup = await newest(testbed, "notify"), await newest(testbed, "idlookup")
    async with connect(testbed.dsn["intake"]) as connection:
        async with held_relay(testbed):
            await testbed.fill(count)
            await connection.execute("analyze events")
            before = await epochs(connection)
        started = await relay_taken(testbed, before)
    births = count_births(testbed.used - count, count)
    deadline = time.monotonic() + timeout_s
    while True:
        # The count reads every event of the run, so count only when the newest ids show that it may be over.
        if await newest(testbed, "notify") >= notify + count and await newest(testbed, "idlookup") >= idlookup + births:
            notices, last = await recorded(testbed, "notify", "NoticeSent", notify)
            numbers, last_number = await recorded(testbed, "idlookup", "IdNumberFound", idlookup)
            if notices >= count and numbers >= births:
                break
        if time.monotonic() > deadline:
            notices, _ = await recorded(testbed, "notify", "NoticeSent", notify)
            raise Stalled(f"{notices} of {count} notices after {timeout_s} s")
        await asyncio.sleep(0.3)
    return Run(count, (max(last, last_number) - started).total_seconds(), (last_number - started).total_seconds())


async def warm_up(testbed: Testbed, seconds: float) -> float:
    """Return the dossiers/s of a run of a few seconds, from which the size of a run of `seconds` follows.

    In a shorter run the start and the end weigh too much, and the rate comes out too low.
    """
    rate = (await run(testbed, FIRST_DOSSIERS)).rate
    return (await run(testbed, tens(rate * min(WARM_UP_S, seconds)))).rate


def tens(count: float) -> int:
    """Round to whole tens with one birth each, so that every contender has the same rows per dossier."""
    return max(round(count / BIRTHS), 1) * BIRTHS


def count_births(before: int, count: int) -> int:
    """Return how many of the dossiers before+1 … before+count are births."""
    return (before + count) // BIRTHS - before // BIRTHS
