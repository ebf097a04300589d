"""idlookup's tables: each request to the registry, who works on it until when, and how it ended.

Lock order: dossiers by id, then requests. Taking due requests never waits for a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from services.idlookup.rules import NO_LONGER_WANTED, NextState, Request
from shared.contract.envelope import Outgoing, Received, new_id
from shared.contract.events import IdNumberStillPending, RequestResult
from shared.postgres.leases import LeasedTable
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

COLUMNS = tuple(column.name for column in fields(Request))
OPEN = "state in ('waiting', 'calling', 'pending')"
NEVER_S = 1e9
LATE = f"kind = 'issue' and not told_pending and not dropped and {OPEN}"


class WantedRequest(NamedTuple):
    """A request to be stored. `sealed`: the subject or the person, as it came."""

    event: Received
    kind: str
    sealed: str


class DroppedRequest(NamedTuple):
    """A request that is no longer wanted."""

    dossier_id: UUID
    request_key: UUID


class DossierResult(NamedTuple):
    """An event to publish about one of a dossier's requests, which still needs its sequence."""

    dossier_id: UUID
    trace_id: UUID
    fact: RequestResult


@dataclass(slots=True)
class RequestUnit:
    """One batch of consumed events: stored and acknowledged at once; the registry is not called here."""

    open_sealed: Callable[[UUID, str, str], Any]
    """(dossier, field, sealed) -> the content. Raises Tampered."""
    wake: Callable[[Iterable[str]], None]
    """Called with the kinds of which requests may be due."""
    heartbeat_seen: Callable[[datetime], None]
    """Called with the time at which each heartbeat was sent."""
    wanted: list[WantedRequest] = field(default_factory=list)
    dropped: list[DroppedRequest] = field(default_factory=list)
    heartbeats: list[datetime] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Outgoing]:
        """Store the batch; returns the events to publish."""
        if self.wanted:
            add_requests(writes, self.wanted)
        if self.dropped:
            await writes.run(tx)  # the batch may contain both a request and its end
            await drop_requests(tx, self.dropped)
        return self.outgoing

    def committed(self) -> None:
        if self.wanted:
            self.wake({request.kind for request in self.wanted})
        for sent_at in self.heartbeats:
            self.heartbeat_seen(sent_at)


def add_requests(writes: Writes, wanted: Sequence[WantedRequest]) -> None:
    """New requests, due at once."""
    writes.add(
        """
        insert into requests (request_key, dossier_id, kind, sealed, trace_id, wanted_at, next_try_at)
        select w.*, least(w.wanted_at, now())
          from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[])
            as w (request_key, dossier_id, kind, sealed, trace_id, wanted_at)
        """,
        [request.event.ce_id for request in wanted],
        [request.event.dossier_id for request in wanted],
        [request.kind for request in wanted],
        [request.sealed for request in wanted],
        [request.event.trace_id for request in wanted],
        [request.event.recorded_at for request in wanted],
    )


async def drop_requests(tx: Tx, dropped: Sequence[DroppedRequest]) -> None:
    """Mark requests as no longer wanted.

    A request that was never sent, or is a suspected duplicate, stops. For any other the registry may have issued a
    number already, so it is asked until it has given its final answer.
    """
    await lock_sequences(tx, (request.dossier_id for request in dropped))
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
        [request.dossier_id for request in dropped],
        [request.request_key for request in dropped],
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
"""A row counts as asked from its first lease on. The `asked` that is returned is the value before this lease."""


async def take_due(pool: Pool, kind: str, limit: int, lease_s: float, *, to_send: bool) -> list[Request]:
    """Up to `limit` due requests of a kind, oldest first, leased for `lease_s` seconds (`shared.postgres.leases`)."""
    rows = await DUE.take_due(pool, limit, lease_s, kind, to_send)
    return sorted((Request(*row) for row in rows), key=lambda request: request.wanted_at)


async def end_pauses(pool: Pool, kind: str) -> None:
    """Make requests due whose calls failed while the registry was down, in the order of their age.

    It holds no dossier's lock, so it must not wait for a row: a locked row is skipped and keeps its short pause.
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


class DueIn(NamedTuple):
    """Wall seconds until the next request is due, negative when one is overdue; a large number when there is none."""

    ask_s: float
    send_s: float


async def due_in(pool: Pool, kind: str) -> DueIn:
    """When the next request of a kind is to be asked about, and when the next is to be sent."""
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
    ask_s, send_s = row
    return DueIn(NEVER_S if ask_s is None else ask_s, NEVER_S if send_s is None else send_s)


async def lock_sequences(tx: Tx, dossier_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Each dossier's last sequence on internal.idnumber-results.v1; locks the dossiers, and adds missing ones."""
    rows = await tx.fetch(
        "insert into dossiers (dossier_id) select d from unnest($1::uuid[]) as d order by 1"
        " on conflict (dossier_id) do update set sequence = dossiers.sequence returning dossier_id, sequence",
        sorted(set(dossier_ids)),
    )
    return {row["dossier_id"]: row["sequence"] for row in rows}


@dataclass(frozen=True, slots=True)
class SettledRequest:
    """A request after a call: what its row becomes and what is published."""

    request: Request
    next_state: NextState
    sealed_number: str | None
    result: RequestResult | None


class Saved(NamedTuple):
    """The events to publish, and the rows that were written."""

    outgoing: list[Outgoing]
    rows: list[SettledRequest]


async def save_settled(tx: Tx, writes: Writes, rows: Sequence[SettledRequest]) -> Saved:
    """Write what requests become after a call. The transaction must end with `writes`.

    A request that another worker has taken meanwhile is not written: the latest to take it decides. A request that was
    dropped during the call stops without an event, unless the registry may still issue its number.
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
        [row.next_state.state for row in rows],
        [row.next_state.asked for row in rows],
        [row.next_state.to_send for row in rows],
        [row.next_state.lost for row in rows],
        [row.sealed_number for row in rows],
        [row.next_state.reason for row in rows],
        [row.next_state.pause_s for row in rows],
        NO_LONGER_WANTED,
    )
    states = {(row["request_key"], row["tries"]): row["state"] for row in written}
    stopped = NextState("stopped", reason=NO_LONGER_WANTED)
    saved = [
        row if states[key] == row.next_state.state else replace(row, next_state=stopped, result=None)
        for row in rows
        if (key := (row.request.request_key, row.request.tries)) in states
    ]
    results = [
        DossierResult(row.request.dossier_id, row.request.trace_id, row.result)
        for row in saved
        if row.result is not None
    ]
    return Saved(number_results(writes, results, sequences), saved)


def number_results(writes: Writes, results: Sequence[DossierResult], sequences: Mapping[UUID, int]) -> list[Outgoing]:
    """The events, each with its dossier's next sequence after `sequences`; `writes` stores the last one of each.

    The dossiers must be locked (`lock_sequences`).
    """
    last = dict(sequences)
    outgoing = []
    for result in results:
        last[result.dossier_id] += 1
        outgoing.append(Outgoing(result.dossier_id, last[result.dossier_id], result.fact, new_id(), result.trace_id))
    changed = sorted({result.dossier_id for result in results})
    if changed:
        writes.add(
            "update dossiers d set sequence = s.sequence from unnest($1::uuid[], $2::int[]) as s (dossier_id, sequence)"
            " where d.dossier_id = s.dossier_id",
            changed,
            [last[dossier_id] for dossier_id in changed],
        )
    return outgoing


async def mark_late(
    tx: Tx, writes: Writes, wanted_before: datetime, limit: int, office_at: Callable[[datetime], datetime]
) -> list[Outgoing]:
    """Mark up to `limit` open requests for a number that were wanted before then; returns IdNumberStillPending of each.

    `office_at` turns a wall time into office time.
    """
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
    marked_keys = {row["request_key"] for row in marked}
    results = [
        DossierResult(
            row["dossier_id"],
            row["trace_id"],
            IdNumberStillPending(request_key=row["request_key"], since=office_at(row["wanted_at"])),
        )
        for row in late
        if row["request_key"] in marked_keys
    ]
    return number_results(writes, results, sequences)
