"""Publishing from a transaction: events are stored beside the state they describe, and the relay sends them.

Why lanes: ids are taken from a sequence, and a transaction that took a lower id may commit later; a reader that goes by
id would skip it. A transaction that appends to a lane holds the lane's lock from before its first id until its commit,
so within a lane id order is commit order. The lane locks come after every row lock, ascending, so that no holder of a
lane waits for a row.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
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
APPEND = f"""
  with held as materialized ({LOCK})
  insert into events ({", ".join(COLUMNS)})
  select lane, topic::topic, dossier_id, key, sequence, ce_id, type, trace_id, data
    from unnest($2::smallint[], $3::text[], $4::uuid[], $5::text[], $6::int[], $7::uuid[], $8::text[], $9::uuid[],
                $10::bytea[]) as e (lane, topic, dossier_id, key, sequence, ce_id, type, trace_id, data)
   where (select count(*) from held) > 0
"""
"""The condition is evaluated once, before the first row takes its id: by then the lanes are locked."""


def append(writes: Writes, events: Sequence[Outgoing]) -> set[int]:
    """Add `events`, in this order, to the writes that end a transaction; nothing may be locked after them.

    Each event's sequence comes from a row that the transaction has locked. Returns the lanes to wake after the commit.
    Raises ValueError for an event that no broker would take: stored, it would stop its lane for ever.
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
        writes.add(APPEND, touched, *(list(column) for column in zip(*rows, strict=True)))
    return set(touched)


class PublishingTransaction:
    """An open transaction that may publish. `tx`: its connection; `writes`: statements that end it, in one round trip.

    Lock rows through `tx`, add what changes to `writes`, and `append` events.
    """

    def __init__(self, tx: Tx) -> None:
        self.tx = tx
        self.writes = Writes()
        self.lanes: set[int] = set()
        """The lanes of the events that `flush` has written."""
        self._events: list[Outgoing] = []
        self._on_commit: list[Callable[[], None]] = []

    def append(self, events: Sequence[Outgoing]) -> None:
        """Publish `events` with this transaction, in this order; they are written when it ends."""
        self._events += events

    def on_commit(self, action: Callable[[], None]) -> None:
        """Call `action` after the commit, before the relay is woken; never after a rollback."""
        self._on_commit.append(action)

    async def flush(self) -> None:
        """Write now what was added and appended; nothing may be locked after it. Called at the end in any case.

        Raises ValueError as `append` of this module does, and what any of the writes raises.
        """
        events, self._events = self._events, []
        self.lanes |= append(self.writes, events)
        await self.writes.run(self.tx)

    def committed(self) -> None:
        for action in self._on_commit:
            action()


class Outbox:
    """Opens the transactions of one service that publish, and wakes its relay when they have committed."""

    def __init__(self, pool: Callable[[], Pool]) -> None:
        self._pool = pool
        self.wake = Wake(pool)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[PublishingTransaction]:
        """One transaction: commits when the block ends, rolls back when it raises.

        Raises UniqueViolationError for a sequence used twice, and NotReady before the database is there.
        """
        async with self._pool().acquire() as tx:
            async with tx.transaction():
                transaction = PublishingTransaction(tx)
                yield transaction
                await transaction.flush()
            transaction.committed()
        self.wake(transaction.lanes)


class Wake:
    """Tells the relay that something was committed: at once in this process, by NOTIFY to whoever owns the lane."""

    def __init__(self, pool: Callable[[], Pool]) -> None:
        self._pool = pool
        self._lanes: set[int] = set()
        self._local = asyncio.Event()
        self._elsewhere = False
        self._notifier: asyncio.Task[None] | None = None
        self.owns: Callable[[], frozenset[int]] = frozenset
        """Which lanes this process's own relay owns; those need no NOTIFY."""

    def __call__(self, lanes: set[int]) -> None:
        """Call after the commit, never inside the transaction: a NOTIFY there serialises commits."""
        self.notified(lanes)
        if lanes - self.owns():
            self._elsewhere = True
            if self._notifier is None or self._notifier.done():
                self._notifier = asyncio.create_task(self._notify())

    def notified(self, lanes: set[int] | frozenset[int]) -> None:
        """Another process committed into these: wakes this process's relay and nobody else."""
        if lanes:
            self._lanes |= lanes
            self._local.set()

    async def _notify(self) -> None:
        while self._elsewhere:
            await asyncio.sleep(NOTIFY_EVERY_S)
            self._elsewhere = False
            try:
                await self._pool().execute("select pg_notify($1, '')", CHANNEL)
            except Exception as error:  # noqa: BLE001 - the owner polls as well; a lost wake-up only costs a moment
                log.info("wake-up not delivered", error=type(error).__name__)

    async def wait(self) -> None:
        """Until something was committed that `take` has not returned."""
        await self._local.wait()

    def take(self) -> set[int]:
        """The lanes that were committed into since the last call."""
        self._local.clear()
        lanes, self._lanes = self._lanes, set()
        return lanes
