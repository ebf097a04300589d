"""How long dossiers waited, Tuesday against Wednesday: the isolation figure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from deploy.demo.week import MONDAY, TUESDAY, WEDNESDAY
from shared.office import VIETNAM

REGISTRY_STAGES = ("identity_check", "id_number")
QUERY = """
  select t.wait_s from tasks t join dossiers d using (dossier_id)
   where t.state = 'closed' and t.stage <> all($1::text[]) and d.recorded_at >= $2 and d.recorded_at < $3
"""
RELAY = """
  select extract(epoch from sent_at - recorded_at)::float8 as wait_s from proof.events
   where recorded_at >= $1 and recorded_at < $2 and sent_at is not null
"""


@dataclass(frozen=True, slots=True)
class Isolation:
    """`wait_p95_ratio`: p95 of the waits in officers' stages, slow day over healthy day; the relay's beside it."""

    wait_p95_ratio: float | None
    samples: int
    """Of each day: the smaller one."""
    lower_95: float | None
    """Lower bound of the ratio's 95 % bootstrap interval."""
    healthy_p95_s: float | None
    slow_p95_s: float | None
    relay_p95_ratio: float | None


def p95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    at = 0.95 * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def day(number: int) -> tuple[datetime, datetime]:
    begin = datetime.combine(MONDAY + timedelta(days=number), datetime.min.time(), VIETNAM)
    return begin, begin + timedelta(days=1)


async def read(dsn: str, number: int) -> list[float]:
    """Waits (working office seconds) of the dossiers filed on that day, in every stage but the registry's.

    By the day of filing, not of waiting: Tuesday's queues hold Monday's larger crowd, Wednesday's do not.
    """
    connection = await asyncpg.connect(dsn)
    try:
        return [row["wait_s"] for row in await connection.fetch(QUERY, list(REGISTRY_STAGES), *day(number))]
    finally:
        await connection.close()


async def read_relay(dsn: str, begin: datetime, end: datetime) -> list[float]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["wait_s"] for row in await connection.fetch(RELAY, begin, end)]
    finally:
        await connection.close()


def compare(
    healthy: Sequence[float], slow: Sequence[float], relay: tuple[Sequence[float], Sequence[float]]
) -> Isolation:
    """None where there is nothing to compare."""
    if not healthy or not slow or not p95(healthy):
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


HEALTHY_DAY, SLOW_DAY = TUESDAY, WEDNESDAY
