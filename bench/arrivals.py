"""Dossiers that arrive on a fixed schedule, whatever becomes of them, and when each service recorded what of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from bench.ground import STAGED, Ground, Stalled, one
from bench.workload import BIRTH, BIRTHS, BUSY, submissions
from services.intake import store
from services.intake.store import NewSubmission
from shared.contract.envelope import Outgoing, new_id
from shared.outbox.publish import CHANNEL, append
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

TICK_S = 0.01
"""Whatever is due is committed, in one transaction, no more often than this."""


@dataclass(frozen=True)
class Arrivals:
    """What arrived: ids in order, and when each was to arrive (seconds since 1970)."""

    ids: tuple[UUID, ...]
    due_at: tuple[float, ...]

    def since(self, seconds: float) -> Arrivals:
        """Without the first seconds: the warm-up."""
        kept = [row for row in zip(self.ids, self.due_at, strict=True) if row[1] >= self.due_at[0] + seconds]
        return Arrivals(tuple(row[0] for row in kept), tuple(row[1] for row in kept))


def prepare(place: Ground, count: int, *, per_second: float = BUSY, births_only: bool = False) -> list[NewSubmission]:
    """Make the dossiers beforehand, so that making them costs the measured seconds nothing; `arrive` at that rate."""
    step = BIRTHS if births_only else 1
    first = (place.spent // step + 1) * step
    numbers = range(first, first + count * step, step)
    place.spent = numbers[-1]
    return list(submissions(place.examples, place.versions, place.sealer, place.clock.now(), numbers, per_second))


def split(new: Sequence[NewSubmission]) -> tuple[list[UUID], list[UUID]]:
    """Ids of (births, all others)."""
    births = [row.dossier_id for row in new if row.fact.procedure_code == BIRTH]
    return births, [row.dossier_id for row in new if row.fact.procedure_code != BIRTH]


async def commit(connection: Tx, new: Sequence[NewSubmission]) -> None:
    """One transaction by intake's own statements."""
    async with connection.transaction():
        await store.add_submissions(connection, new)
        facts = [Outgoing(row.dossier_id, 1, row.fact, new_id(), row.trace_id) for row in new]
        writes = Writes()
        append(writes, facts)
        await writes.run(connection)


async def fill(place: Ground, new: Sequence[NewSubmission]) -> None:
    """Commit all at once, `STAGED` in a transaction."""
    async with one(place.dsn["intake"]) as connection:
        for first in range(0, len(new), STAGED):
            await commit(connection, new[first : first + STAGED])


async def arrive(place: Ground, new: Sequence[NewSubmission], per_second: float) -> Arrivals:
    """Commit `per_second` a second on a schedule that waits for nobody; wake intake's relay as a second process does.

    A commit that takes longer than a tick does not put the schedule off: the next one takes all that is due by then.
    """
    async with one(place.dsn["intake"]) as connection:
        begun, at = time.time(), 0
        while at < len(new):
            due = math.floor((time.time() - begun) * per_second) + 1
            if part := new[at : min(due, at + STAGED)]:
                await commit(connection, part)
                await connection.execute("select pg_notify($1, '')", CHANNEL)
                at += len(part)
            if at >= due:
                await asyncio.sleep(max(begun + at / per_second - time.time(), TICK_S))
    return Arrivals(tuple(row.dossier_id for row in new), tuple(begun + i / per_second for i in range(len(new))))


async def recorded(dsn: str, kind: str, ids: Sequence[UUID]) -> dict[UUID, float]:
    """When each dossier's first event of this kind was recorded (seconds since 1970), where there is one."""
    async with one(dsn) as connection:
        rows = await connection.fetch(
            "select dossier_id, extract(epoch from min(recorded_at))::float8 as at from events"
            " where type = $1 and dossier_id = any($2::uuid[]) group by 1",
            kind,
            list(ids),
        )
    return {row["dossier_id"]: row["at"] for row in rows}


async def all_recorded(dsn: str, kind: str, ids: Sequence[UUID], timeout_s: float = 120.0) -> dict[UUID, float]:
    """The same, once all have it. Raises Stalled."""
    deadline = time.monotonic() + timeout_s
    while len(found := await recorded(dsn, kind, ids)) < len(ids):
        if time.monotonic() > deadline:
            raise Stalled(f"{len(found)} of {len(ids)} {kind} after {timeout_s} s")
        await asyncio.sleep(0.3)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]
