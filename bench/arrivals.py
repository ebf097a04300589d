"""Dossiers that arrive on a fixed schedule (open loop), and the times at which the services recorded their events."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from bench.testbed import BATCH, Stalled, Testbed, connect
from bench.workload import BIRTH, BIRTHS, BUSY, submissions
from services.intake import store
from services.intake.store import NewSubmission
from shared.contract.envelope import Outgoing, new_id
from shared.outbox.publish import CHANNEL, append
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

TICK_S = 0.01
"""Minimum time between two commits; each commits all dossiers that are due, in one transaction."""


@dataclass(frozen=True)
class Arrivals:
    """The dossiers that arrived: their ids in order, and when each was due (seconds since 1970)."""

    ids: tuple[UUID, ...]
    due_at: tuple[float, ...]

    def since(self, seconds: float) -> Arrivals:
        """Return the arrivals without the first seconds, the warm-up."""
        kept = [row for row in zip(self.ids, self.due_at, strict=True) if row[1] >= self.due_at[0] + seconds]
        return Arrivals(tuple(row[0] for row in kept), tuple(row[1] for row in kept))


def prepare(
    testbed: Testbed, count: int, *, per_second: float = BUSY, births_only: bool = False
) -> list[NewSubmission]:
    """Make `count` dossiers before the measurement, with ids as of arrivals at `per_second`."""
    step = BIRTHS if births_only else 1
    first = (testbed.used // step + 1) * step
    numbers = range(first, first + count * step, step)
    testbed.used = numbers[-1]
    return list(
        submissions(testbed.examples, testbed.versions, testbed.sealer, testbed.clock.now(), numbers, per_second)
    )


def split(new: Sequence[NewSubmission]) -> tuple[list[UUID], list[UUID]]:
    """Return the ids of the births, and of all others."""
    births = [row.dossier_id for row in new if row.fact.procedure_code == BIRTH]
    return births, [row.dossier_id for row in new if row.fact.procedure_code != BIRTH]


async def commit(connection: Tx, new: Sequence[NewSubmission]) -> None:
    """Commit the dossiers in one transaction, with intake's own statements."""
    async with connection.transaction():
        await store.add_submissions(connection, new)
        facts = [Outgoing(row.dossier_id, 1, row.fact, new_id(), row.trace_id) for row in new]
        writes = Writes()
        append(writes, facts)
        await writes.run(connection)


async def fill(testbed: Testbed, new: Sequence[NewSubmission]) -> None:
    """Commit all dossiers at once, BATCH per transaction."""
    async with connect(testbed.dsn["intake"]) as connection:
        for first in range(0, len(new), BATCH):
            await commit(connection, new[first : first + BATCH])


async def arrive(testbed: Testbed, new: Sequence[NewSubmission], per_second: float) -> Arrivals:
    """Commit `per_second` dossiers per second on a fixed schedule, and wake intake's relay as a second process does.

    A slow commit does not delay the schedule: the next one commits all dossiers that are due by then.
    """
    async with connect(testbed.dsn["intake"]) as connection:
        started, at = time.time(), 0
        while at < len(new):
            due = math.floor((time.time() - started) * per_second) + 1
            if part := new[at : min(due, at + BATCH)]:
                await commit(connection, part)
                await connection.execute("select pg_notify($1, '')", CHANNEL)
                at += len(part)
            if at >= due:
                await asyncio.sleep(max(started + at / per_second - time.time(), TICK_S))
    return Arrivals(tuple(row.dossier_id for row in new), tuple(started + i / per_second for i in range(len(new))))


async def recorded(dsn: str, kind: str, ids: Sequence[UUID]) -> dict[UUID, float]:
    """Return when each dossier's first event of this kind was recorded (seconds since 1970), if any."""
    async with connect(dsn) as connection:
        rows = await connection.fetch(
            "select dossier_id, extract(epoch from min(recorded_at))::float8 as at from events"
            " where type = $1 and dossier_id = any($2::uuid[]) group by 1",
            kind,
            list(ids),
        )
    return {row["dossier_id"]: row["at"] for row in rows}


async def all_recorded(dsn: str, kind: str, ids: Sequence[UUID], timeout_s: float = 120.0) -> dict[UUID, float]:
    """Wait until all dossiers have such an event and return the times. Raises Stalled."""
    deadline = time.monotonic() + timeout_s
    while len(times := await recorded(dsn, kind, ids)) < len(ids):
        if time.monotonic() > deadline:
            raise Stalled(f"{len(times)} of {len(ids)} {kind} after {timeout_s} s")
        await asyncio.sleep(0.3)
    return times


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least the `share` of all values do not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]
