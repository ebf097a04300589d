"""What idlookup remembers: each request of the registry, who is at work on it until when, and what came of it.

Locks: dossier rows by id, then request rows. Taking up never waits for a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.idlookup.rules import NO_LONGER_WANTED, Next, Request
from shared.contract.envelope import Outgoing, Received, new_id
from shared.contract.events import IdNumberStillPending, RequestResult
from shared.postgres.leases import LeasedTable
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

COLUMNS = tuple(column.name for column in fields(Request))
OPEN = "state in ('waiting', 'calling', 'pending')"
LATE = f"kind = 'issue' and not told_pending and not dropped and {OPEN}"


@dataclass(slots=True)
class RequestUnit:
    """One batch of wants: stored and acknowledged at once; nobody is called here."""

    open_sealed: Callable[[UUID, str, str], Any]
    """(dossier, field, sealed) -> what it says. Raises Tampered."""
    wake: Callable[[Iterable[str]], None]
    """Called with the kinds of which requests may be due."""
    heartbeat_seen: Callable[[datetime], None]
    """Called with the time at which each heartbeat was sent."""
    wanted: list[tuple[Received, str, str]] = field(default_factory=list)
    """(event, kind, sealed)"""
    dropped: list[tuple[UUID, UUID]] = field(default_factory=list)
    """(dossier, request key)"""
    heartbeats: list[datetime] = field(default_factory=list)
    extra: list[Outgoing] = field(default_factory=list)

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Outgoing]:
        if self.wanted:
            add_requests(writes, self.wanted)
        if self.dropped:
            await writes.run(tx)  # what is dropped may have been wanted in this very batch
            await drop_requests(tx, self.dropped)
        return self.extra

    def committed(self) -> None:
        if self.wanted:
            self.wake({kind for _, kind, _ in self.wanted})
        for sent_at in self.heartbeats:
            self.heartbeat_seen(sent_at)


def add_requests(writes: Writes, wanted: Sequence[tuple[Received, str, str]]) -> None:
    writes.add(
        """
        insert into requests (request_key, dossier_id, kind, sealed, trace_id, wanted_at, next_try_at)
        select w.*, least(w.wanted_at, now())
          from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[])
            as w (request_key, dossier_id, kind, sealed, trace_id, wanted_at)
        """,
        [event.ce_id for event, _, _ in wanted],
        [event.dossier_id for event, _, _ in wanted],
        [kind for _, kind, _ in wanted],
        [sealed for _, _, sealed in wanted],
        [event.trace_id for event, _, _ in wanted],
        [event.recorded_at for event, _, _ in wanted],
    )


async def drop_requests(tx: Tx, dropped: Sequence[tuple[UUID, UUID]]) -> None:
    """Never called: stopped. Called already: the registry may have issued, so it is asked to the end."""
    await lock_sequences(tx, (dossier_id for dossier_id, _ in dropped))
    await tx.execute(
        """
        update requests r
           set dropped = true,
               state = case when r.state = 'duplicate' or (r.state = 'waiting' and not r.asked) then 'stopped'
                            else r.state end,
               settled_at = case when r.state = 'duplicate' or (r.state = 'waiting' and not r.asked) then now()
                                 else r.settled_at end
          from unnest($1::uuid[], $2::uuid[]) as d (dossier_id, request_key)
         where r.request_key = d.request_key and r.dossier_id = d.dossier_id
        """,
        [dossier_id for dossier_id, _ in dropped],
        [request_key for _, request_key in dropped],
    )


DUE = LeasedTable(
    table="requests",
    key=("request_key",),
    due_at="next_try_at",
    open_rows=f"kind = $3 and to_send = $4 and {OPEN}",
    assignments="state = 'calling', asked = true, asked_at = coalesce(t.asked_at, clock_timestamp())",
    returning=COLUMNS,
    before=("asked",),
)
"""Each row counts as asked from its first lease on; what is returned says whether it was asked *before*."""


async def take_due(pool: Pool, kind: str, limit: int, lease_s: float, *, to_send: bool) -> list[Request]:
    """Due requests of a kind, leased for `lease_s` seconds, the oldest first (`shared.postgres.leases`)."""
    rows = await DUE.take_due(pool, limit, lease_s, kind, to_send)
    return sorted((Request(*row) for row in rows), key=lambda request: request.wanted_at)


async def end_pauses(pool: Pool, kind: str) -> None:
    """The registry answers again: who had no answer from it while it did not is due now, in the place of its age.

    Waits for nobody, as it holds no dossier's lock: a row that somebody is at work on keeps its short pause.
    """
    await pool.execute(
        """
        with paused as materialized (
          select request_key from requests
           where kind = $1 and state in ('waiting', 'pending') and lost > 0 and next_try_at > wanted_at
           order by request_key for update skip locked)
        update requests r set next_try_at = r.wanted_at from paused where r.request_key = paused.request_key
        """,
        kind,
    )


async def due_in(pool: Pool, kind: str) -> tuple[float, float]:
    """Wall seconds until the next request of a kind is due (to be asked after, to be sent); a large number for none."""
    row = await pool.fetchrow(
        f"""
        select extract(epoch from (select min(next_try_at) from requests where kind = $1 and not to_send and {OPEN})
                                  - clock_timestamp())::float8,
               extract(epoch from (select min(next_try_at) from requests where kind = $1 and to_send and {OPEN})
                                  - clock_timestamp())::float8
        """,
        kind,
    )
    assert row is not None
    asks, sends = row
    return 1e9 if asks is None else asks, 1e9 if sends is None else sends


async def lock_sequences(tx: Tx, dossier_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Each dossier's last sequence on the results topic, locked."""
    rows = await tx.fetch(
        "insert into dossiers (dossier_id) select d from unnest($1::uuid[]) as d order by 1"
        " on conflict (dossier_id) do update set sequence = dossiers.sequence returning dossier_id, sequence",
        sorted(set(dossier_ids)),
    )
    return {row["dossier_id"]: row["sequence"] for row in rows}


@dataclass(frozen=True, slots=True)
class SettledRequest:
    """What became of one request after a call."""

    request: Request
    made: Next
    sealed_number: str | None
    fact: RequestResult | None


async def save_settled(
    tx: Tx, writes: Writes, rows: Sequence[SettledRequest]
) -> tuple[list[Outgoing], list[SettledRequest]]:
    """Write what became of them; returns (what to tell, what was written). Ends with `writes`.

    A request that somebody else has taken up meanwhile is left alone: the latest decides. One that was dropped during
    the call ends stopped, and nothing is told, where nobody needs to decide or wait any more.
    """
    sequences = await lock_sequences(tx, (row.request.dossier_id for row in rows))
    written = await tx.fetch(
        """
        update requests r
           set state = case when r.dropped and s.idle then 'stopped' else s.state end,
               asked = s.asked, to_send = s.to_send, lost = s.lost,
               sealed_number = coalesce(s.number, r.sealed_number),
               reason = case when r.dropped and s.idle then $10 else s.reason end,
               next_try_at = clock_timestamp() + coalesce(s.pause, 0) * interval '1 second',
               settled_at = case when s.pause is null or (r.dropped and s.idle) then clock_timestamp() end
          from (select *, state = 'duplicate' or (state = 'waiting' and not asked) as idle
                  from unnest($1::uuid[], $2::int[], $3::text[], $4::bool[], $5::bool[], $6::int[], $7::text[],
                              $8::text[], $9::float8[])
                    as s (key, tries, state, asked, to_send, lost, number, reason, pause)) as s
         where r.request_key = s.key and r.tries = s.tries and r.state = 'calling'
        returning r.request_key, r.tries, r.state
        """,
        [row.request.request_key for row in rows],
        [row.request.tries for row in rows],
        [row.made.state for row in rows],
        [row.made.asked for row in rows],
        [row.made.to_send for row in rows],
        [row.made.lost for row in rows],
        [row.sealed_number for row in rows],
        [row.made.reason for row in rows],
        [row.made.pause_s for row in rows],
        NO_LONGER_WANTED,
    )
    kept = {(row["request_key"], row["tries"]): row["state"] for row in written}
    saved = [
        row if kept[place] == row.made.state else replace(row, made=Next("stopped", reason=NO_LONGER_WANTED), fact=None)
        for row in rows
        if (place := (row.request.request_key, row.request.tries)) in kept
    ]
    told = [(row.request.dossier_id, row.request.trace_id, row.fact) for row in saved if row.fact is not None]
    return number_facts(writes, told, sequences), saved


def number_facts(
    writes: Writes, told: Sequence[tuple[UUID, UUID, RequestResult]], sequences: Mapping[UUID, int]
) -> list[Outgoing]:
    """(dossier, trace, fact) with their sequences, from rows that are locked; the rows are moved on by `writes`."""
    last = dict(sequences)
    outgoing = []
    for dossier_id, trace_id, fact in told:
        last[dossier_id] += 1
        outgoing.append(Outgoing(dossier_id, last[dossier_id], fact, new_id(), trace_id))
    moved = sorted({dossier_id for dossier_id, _, _ in told})
    if moved:
        writes.add(
            "update dossiers d set sequence = s.sequence from unnest($1::uuid[], $2::int[]) as s (dossier_id, sequence)"
            " where d.dossier_id = s.dossier_id",
            moved,
            [last[dossier_id] for dossier_id in moved],
        )
    return outgoing


async def mark_late(
    tx: Tx, writes: Writes, wanted_before: datetime, limit: int, office_at: Callable[[datetime], datetime]
) -> list[Outgoing]:
    """Numbers wanted before then that are not there: told once each, whether the registry was reached or not."""
    late = await tx.fetch(
        f"select request_key, dossier_id, trace_id, wanted_at from requests where {LATE} and wanted_at < $1"
        " order by wanted_at limit $2",
        wanted_before,
        limit,
    )
    if not late:
        return []
    sequences = await lock_sequences(tx, (row["dossier_id"] for row in late))
    marked = await tx.fetch(
        f"update requests set told_pending = true where request_key = any($1::uuid[]) and {LATE} returning request_key",
        [row["request_key"] for row in late],
    )
    kept = {row["request_key"] for row in marked}
    facts = [
        (
            row["dossier_id"],
            row["trace_id"],
            IdNumberStillPending(request_key=row["request_key"], since=office_at(row["wanted_at"])),
        )
        for row in late
        if row["request_key"] in kept
    ]
    return number_facts(writes, facts, sequences)
