"""The isolation figure: how long dossiers waited on the slow Wednesday, compared with the healthy Tuesday.

Each day has a pool of waits in office seconds. It holds the dossiers filed on that day: each wait in an officer's stage
(working time, from workflow's tasks) and each notice's wait for its channel (wall time times the clock's speed, from
notify's ledger). The registry's two stages are left out. A wait that is still open at the end of the week counts with
its length so far, and both pools are cut off at the longest wait that Wednesday's last dossier can have. The relay's
waits belong to events and not to dossiers, so their ratio is a separate figure.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from deploy.demo.centre import OPEN
from deploy.demo.week import DAYS, TUESDAY, WEDNESDAY, Week
from shared.clock import VIETNAM, OfficeClock

HEALTHY_DAY, SLOW_DAY = TUESDAY, WEDNESDAY
REGISTRY_STAGES = ("identity_check", "id_number")
OFFICERS = """
  select t.wait_s, t.entered_office_at, t.started_office_at from tasks t join dossiers d using (dossier_id)
   where t.stage <> all($1::text[]) and d.recorded_at >= $2 and d.recorded_at < $3 and t.entered_office_at < $4
"""
FILED = "select dossier_id from dossiers where recorded_at >= $1 and recorded_at < $2"
NOTICES = """
  select extract(epoch from coalesce(min(taken_at), greatest($2, min(wanted_at))) - min(wanted_at))::float8 as wait_s
    from notices where dossier_id = any($1::uuid[]) group by notice_id
"""
RELAY = """
  select extract(epoch from sent_at - recorded_at)::float8 as wait_s from proof.events
   where recorded_at >= $1 and recorded_at < $2 and sent_at is not null
"""


@dataclass(frozen=True, slots=True)
class Isolation:
    """`wait_p95_ratio`: p95 of all waits outside the registry's stages, slow day over healthy day."""

    wait_p95_ratio: float | None
    samples: int
    """Waits per day: the smaller number of the two days."""
    lower_95: float | None
    """The lower bound of the ratio's 95 % bootstrap interval."""
    healthy_p95_s: float | None
    slow_p95_s: float | None
    relay_p95_ratio: float | None


def p95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    at = 0.95 * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def working_seconds(begin: datetime, end: datetime) -> float:
    """Seconds of office hours between two office times of a week without holidays."""
    total, date = 0.0, begin.astimezone(VIETNAM).date()
    while date <= end.astimezone(VIETNAM).date():
        for opens, closes in OPEN if date.weekday() < DAYS else ():
            first = max(datetime.combine(date, opens, VIETNAM), begin)
            total += max((min(datetime.combine(date, closes, VIETNAM), end) - first).total_seconds(), 0.0)
        date += timedelta(days=1)
    return total


def longest_wait(week: Week) -> float:
    """The longest wait, in working seconds, that the slow day's last dossier can have at the end of the week."""
    return working_seconds(week.day(SLOW_DAY)[1], week.ends_at)


async def read(databases: Mapping[str, str], clock: OfficeClock, week: Week, number: int) -> tuple[list[float], int]:
    """Every wait of the dossiers filed on that day, in office seconds, and the number of these dossiers."""
    begin, end = week.day(number)
    longest = longest_wait(week)
    workflow, notify = await asyncpg.connect(databases["workflow"]), await asyncpg.connect(databases["notify"])
    try:
        stays = await workflow.fetch(OFFICERS, list(REGISTRY_STAGES), begin, end, week.ends_at)
        filed = [row["dossier_id"] for row in await workflow.fetch(FILED, begin, end)]
        over_at = datetime.fromtimestamp(clock.wall(week.ends_at), VIETNAM)
        notices = [row["wait_s"] * clock.speed for row in await notify.fetch(NOTICES, filed, over_at)]
    finally:
        await workflow.close()
        await notify.close()
    return [min(wait, longest) for wait in (*(_stay(row, week.ends_at) for row in stays), *notices)], len(filed)


def _stay(row: Any, over_at: datetime) -> float:
    if row["wait_s"] is not None:
        return float(row["wait_s"])
    return working_seconds(row["entered_office_at"], min(row["started_office_at"] or over_at, over_at))


async def read_relay(dsn: str, begin: datetime, end: datetime) -> list[float]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["wait_s"] for row in await connection.fetch(RELAY, begin, end)]
    finally:
        await connection.close()


def compare(
    healthy: Sequence[float],
    slow: Sequence[float],
    relay: tuple[Sequence[float], Sequence[float]],
    longest: float = math.inf,
) -> Isolation:
    """Compare the pools. The ratio is None when one is empty, or when the healthy day's p95 is 0 or was cut off."""
    if not healthy or not slow or not 0 < p95(healthy) < longest:
        return Isolation(None, min(len(healthy), len(slow)), None, None, None, None)
    chance = random.Random(20250825)
    ratios = sorted(
        p95(chance.choices(slow, k=len(slow))) / max(p95(chance.choices(healthy, k=len(healthy))), 1e-9)
        for _ in range(2_000)
    )
    relay_ratio = p95(relay[1]) / p95(relay[0]) if relay[0] and relay[1] and p95(relay[0]) > 0 else None
    return Isolation(
        wait_p95_ratio=round(p95(slow) / p95(healthy), 4),
        samples=min(len(healthy), len(slow)),
        lower_95=round(ratios[49], 4),
        healthy_p95_s=round(p95(healthy), 1),
        slow_p95_s=round(p95(slow), 1),
        relay_p95_ratio=None if relay_ratio is None else round(relay_ratio, 3),
    )
