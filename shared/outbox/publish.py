"""Tell others, in your transaction: events are appended beside the state they speak of, and the relay sends them.

Why lanes: ids are taken from a sequence, and a transaction that took a lower id may commit later; a reader that goes by
id would skip it. Whoever stages into a lane holds the lane's lock from before its first id until its commit, so within
a lane id order is commit order. The lane locks come after every row lock, ascending, so that no lane holder waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from shared.contract.envelope import Outgoing
from shared.contract.partitions import lane_of
from shared.postgres.writes import MIN_COPY_ROWS, Bulk, Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

log = structlog.get_logger(__name__)

CHANNEL = "hoso_outbox"
NOTIFY_EVERY_S = 0.01
MAX_DATA = 800_000
"""Bytes of one event's JSON: with its envelope it fits a broker's usual limit of a million."""


COLUMNS = ("lane", "topic", "dossier_id", "key", "sequence", "ce_id", "type", "trace_id", "data")
LOCK = "select pg_advisory_xact_lock(1, lane) from unnest($1::int[]) as lane"
STAGE = f"""
  with held as materialized ({LOCK})
  insert into events ({", ".join(COLUMNS)})
  select lane, topic::topic, dossier_id, key, sequence, ce_id, type, trace_id, data
    from unnest($2::smallint[], $3::text[], $4::uuid[], $5::text[], $6::int[], $7::uuid[], $8::text[], $9::uuid[],
                $10::bytea[]) as e (lane, topic, dossier_id, key, sequence, ce_id, type, trace_id, data)
   where (select count(*) from held) > 0
"""
"""The condition is asked once, before the first row and its id: so the lanes are ours by then."""


async def stage(tx: Tx, events: Sequence[Outgoing], writes: Writes | None = None) -> set[int]:
    """Append `events` in this order, together with `writes`; returns the lanes to wake after the commit.

    Call it last in a transaction. Raises as `append` does, and UniqueViolationError for a sequence used twice.
    """
    writes = writes or Writes()
    lanes = append(writes, events)
    await writes.run(tx)
    return lanes


def append(writes: Writes, events: Sequence[Outgoing]) -> set[int]:
    """`stage` as one of the writes with which a transaction ends: nothing may be locked after them.

    Each event's sequence comes from a row that the transaction has locked. Raises ValueError for an event that no
    broker would take: stored, it would stop its lane for ever.
    """
    if not events:
        return set()
    data = [event.fact.to_json() for event in events]
    for event, value in zip(events, data, strict=True):
        if len(value) > MAX_DATA:
            raise ValueError(f"{type(event.fact).__name__} has {len(value)} bytes, more than {MAX_DATA}")
    known = {subject: lane_of(str(subject)) for subject in {event.dossier_id or event.key or "" for event in events}}
    lanes = [known[event.dossier_id or event.key or ""] for event in events]
    touched = sorted(set(lanes))
    rows = [
        (
            lane,
            event.fact.topic,
            event.dossier_id,
            event.key if event.dossier_id is None else None,
            event.sequence,
            event.ce_id,
            type(event.fact).__name__,
            event.trace_id,
            value,
        )
        for event, lane, value in zip(events, lanes, data, strict=True)
    ]
    if len(rows) >= MIN_COPY_ROWS:
        writes.copy(Bulk("events", COLUMNS, rows, (LOCK, touched)))
    else:
        writes.add(STAGE, touched, *(list(column) for column in zip(*rows, strict=True)))
    return set(touched)


class Wake:
    """Tells the relay that something was committed: at once in this process, by NOTIFY to whoever owns the lane."""

    def __init__(self) -> None:
        self._lanes: set[int] = set()
        self._local = asyncio.Event()
        self._elsewhere = False
        self._notifier: asyncio.Task[None] | None = None
        self.pool: Pool | None = None
        self.owns: Callable[[], frozenset[int]] = frozenset
        """Which lanes this process's own relay owns; those need no NOTIFY."""

    def __call__(self, lanes: set[int]) -> None:
        """Call after the commit, never inside the transaction: a NOTIFY there serialises commits."""
        self.heard(lanes)
        if self.pool is not None and lanes - self.owns():
            self._elsewhere = True
            if self._notifier is None or self._notifier.done():
                self._notifier = asyncio.create_task(self._notify(self.pool))

    def heard(self, lanes: set[int] | frozenset[int]) -> None:
        """Another process committed into these: wakes this process's relay and nobody else."""
        if lanes:
            self._lanes |= lanes
            self._local.set()

    async def _notify(self, pool: Pool) -> None:
        while self._elsewhere:
            await asyncio.sleep(NOTIFY_EVERY_S)
            self._elsewhere = False
            try:
                await pool.execute("select pg_notify($1, '')", CHANNEL)
            except Exception as error:  # noqa: BLE001 - the owner polls as well; a lost wake-up only costs a moment
                log.info("wake-up not delivered", error=type(error).__name__)

    async def wait(self) -> None:
        """Until something was committed that `take` has not handed out."""
        await self._local.wait()

    def take(self) -> set[int]:
        """The lanes something was committed into since last asked."""
        self._local.clear()
        lanes, self._lanes = self._lanes, set()
        return lanes
