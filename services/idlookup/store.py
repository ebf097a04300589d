"""What idlookup remembers: each request of the registry, who is at work on it until when, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shared.envelope import Outgoing, Received, new_id
from shared.events import Fact, IdCheckWanted, IdNumberWanted
from shared.service import Service

from .rules import Next, Request

if TYPE_CHECKING:
    from shared.database import Pool, Tx

COLUMNS = (
    "request_key, dossier_id, kind, sealed, trace_id, asked, confirmed, dropped, told_pending, tries, lost, wanted_at"
)


@dataclass(slots=True)
class RequestWork:
    """One batch of wants: stored and acknowledged at once; nobody is called here."""

    service: Service
    wanted: list[tuple[Received, str, str]] = field(default_factory=list)
    """(event, kind, sealed)"""
    dropped: list[UUID] = field(default_factory=list)
    extra: list[Outgoing] = field(default_factory=list)

    async def save(self, tx: Tx) -> Sequence[Outgoing]:
        if self.wanted:
            await tx.execute(
                """
                insert into requests (request_key, dossier_id, kind, sealed, trace_id, wanted_at)
                select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[])
                """,
                [event.ce_id for event, _, _ in self.wanted],
                [event.dossier_id for event, _, _ in self.wanted],
                [kind for _, kind, _ in self.wanted],
                [sealed for _, _, sealed in self.wanted],
                [event.trace_id for event, _, _ in self.wanted],
                [event.recorded_at for event, _, _ in self.wanted],
            )
        if self.dropped:
            # Never called: stopped. Called already: the registry may have issued, so it is asked to the end.
            await tx.execute(
                "update requests set dropped = true,"
                " state = case when state = 'duplicate' or (state = 'waiting' and not asked) then 'stopped' else state end"
                " where request_key = any($1::uuid[])",
                sorted(self.dropped),
            )
        self.service.extras["came"].set()
        return self.extra


async def take_due(pool: Pool, kind: str, limit: int, lease_s: float) -> list[Request]:
    """The oldest due requests of a kind, leased. From here on each counts as asked: the call may reach the registry.

    What comes back says whether it was asked *before*. A caller that dies leaves its rows to the next one.
    """
    rows = await pool.fetch(
        f"""
        with due as materialized (
          select request_key, asked from requests
           where kind = $1 and state in ('waiting', 'calling', 'pending') and next_try_at <= clock_timestamp()
           order by next_try_at limit $2 for update skip locked
        )
        update requests r set state = 'calling', asked = true, tries = r.tries + 1,
               next_try_at = clock_timestamp() + $3 * interval '1 second'
          from due where r.request_key = due.request_key
        returning {", ".join("due.asked" if name == "asked" else f"r.{name}" for name in COLUMNS.split(", "))}
        """,
        kind,
        limit,
        lease_s,
    )
    found = [Request(**dict(row)) for row in rows]
    return sorted(found, key=lambda request: request.wanted_at)


async def lock_sequences(tx: Tx, dossier_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Each dossier's last sequence on the results topic, locked."""
    ordered = sorted(set(dossier_ids))
    await tx.execute(
        "insert into dossiers (dossier_id) select d from unnest($1::uuid[]) as d order by d on conflict do nothing",
        ordered,
    )
    rows = await tx.fetch(
        "select dossier_id, sequence from dossiers where dossier_id = any($1::uuid[]) order by dossier_id for update",
        ordered,
    )
    return {row["dossier_id"]: row["sequence"] for row in rows}


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one request after a call; `facts` in order."""

    request: Request
    made: Next
    sealed_number: str | None
    told_pending: bool
    facts: tuple[Fact, ...]


async def save_settled(tx: Tx, rows: Sequence[Settled]) -> list[Outgoing]:
    """Write what became of them, where nobody else has taken them up meanwhile; returns what to tell."""
    sequences = await lock_sequences(tx, [row.request.dossier_id for row in rows])
    ours = await tx.fetch(
        """
        update requests r set
          state = case when r.dropped and s.state = 'waiting' and not s.asked then 'stopped' else s.state end,
          asked = s.asked, lost = s.lost, told_pending = r.told_pending or s.told,
          sealed_number = coalesce(s.number, r.sealed_number), reason = coalesce(s.reason, r.reason),
          next_try_at = clock_timestamp() + coalesce(s.pause, 0) * interval '1 second',
          settled_at = case when s.pause is null then clock_timestamp() end
          from unnest($1::uuid[], $2::int[], $3::text[], $4::bool[], $5::int[], $6::bool[], $7::text[], $8::text[],
                      $9::float8[]) as s (key, tries, state, asked, lost, told, number, reason, pause)
         where r.request_key = s.key and r.tries = s.tries and r.state = 'calling' returning r.request_key
        """,
        [row.request.request_key for row in rows],
        [row.request.tries for row in rows],
        [row.made.state for row in rows],
        [row.made.asked for row in rows],
        [row.made.lost for row in rows],
        [row.told_pending for row in rows],
        [row.sealed_number for row in rows],
        [row.made.reason for row in rows],
        [row.made.pause_s for row in rows],
    )
    kept = {row["request_key"] for row in ours}
    told: list[Outgoing] = []
    for row in rows:
        if row.request.request_key in kept:
            told += tell(sequences, row.request.dossier_id, row.request.trace_id, row.facts)
    await save_sequences(tx, sequences, {event.dossier_id for event in told if event.dossier_id})
    return told


def tell(sequences: dict[UUID, int], dossier_id: UUID, trace_id: UUID, facts: Sequence[Fact]) -> list[Outgoing]:
    made = []
    for fact in facts:
        sequences[dossier_id] += 1
        made.append(Outgoing(dossier_id, sequences[dossier_id], fact, new_id(), trace_id))
    return made


async def save_sequences(tx: Tx, sequences: dict[UUID, int], changed: set[UUID]) -> None:
    await tx.execute(
        "update dossiers d set sequence = s.n from unnest($1::uuid[], $2::int[]) as s (d, n) where d.dossier_id = s.d",
        sorted(changed),
        [sequences[dossier_id] for dossier_id in sorted(changed)],
    )


async def lock_request(tx: Tx, request_key: UUID) -> Any | None:
    return await tx.fetchrow("select * from requests where request_key = $1 for update", request_key)


async def next_due_in(pool: Pool, kind: str) -> float:
    """Wall seconds until the next request of a kind is due; large when none is."""
    found = await pool.fetchval(
        "select extract(epoch from min(next_try_at) - clock_timestamp())::float8 from requests"
        " where kind = $1 and state in ('waiting', 'calling', 'pending')",
        kind,
    )
    return 1e9 if found is None else float(found)


async def list_requests(pool: Pool, state: str | None, after: tuple[datetime, UUID] | None, limit: int) -> list[Any]:
    return await pool.fetch(
        "select request_key, dossier_id, kind, state, wanted_at, tries, sealed_number, reason, settled_at from requests"
        " where ($1::text is null or state = $1) and ($2::timestamptz is null or (wanted_at, request_key) > ($2, $3))"
        " order by wanted_at, request_key limit $4",
        state,
        after[0] if after else None,
        after[1] if after else None,
        limit,
    )


def kind_of(fact: Fact) -> tuple[str, str, str]:
    """(kind, sealed value, the name it was sealed under) of a want."""
    if isinstance(fact, IdNumberWanted):
        return "issue", fact.sealed_subject, "subject"
    assert isinstance(fact, IdCheckWanted)
    return "verify", fact.sealed_person, "person"
