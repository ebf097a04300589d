"""notify's tables: the ledger of notices and, per dossier, the sequence of its published outcomes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from services.notify.metrics import NoticeMetrics
from services.notify.rules import CALL_LIST, Settlement
from shared.contract.envelope import Outgoing, new_id
from shared.contract.events import NoticeFailed, NoticeOutcome, NoticeSent
from shared.postgres.leases import LeasedTable
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx


class Notice(NamedTuple):
    """One row: one notice on one channel."""

    notice_id: UUID
    channel: str
    dossier_id: UUID
    kind: str
    cause: str
    dossier_code: str | None
    national_status: int
    result_due_at: datetime | None
    receiving_agency: str
    sealed_contact: str
    trace_id: UUID
    wanted_at: datetime
    instead_of: str | None = None
    tries: int = 0
    taken_at: datetime | None = None
    handing_over_at: datetime | None = None

    @property
    def reference(self) -> str:
        """The message's name at its channel: the same on every try."""
        return f"{self.notice_id}:{self.channel}"


COLUMNS = Notice._fields
NEW = COLUMNS[: COLUMNS.index("tries")]
"""The columns of a new row; the others have defaults."""


@dataclass(frozen=True, slots=True)
class SettledNotice:
    """A row that was taken, and what became of it."""

    notice: Notice
    settlement: Settlement


def add_notices(writes: Writes, notices: Sequence[Notice]) -> None:
    """New rows: due at once, or listed at once on the call list. Their dossiers must have a row."""
    writes.add(
        """
        insert into notices (notice_id, channel, dossier_id, kind, cause, dossier_code, national_status, result_due_at,
                             receiving_agency, sealed_contact, trace_id, wanted_at, instead_of, state, try_at,
                             taken_at, settled_at)
        select n.*, case channel when 'call_list' then 'listed' else 'due' end, now(),
               case channel when 'call_list' then now() end, case channel when 'call_list' then now() end
          from unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::smallint[],
                      $8::timestamptz[], $9::text[], $10::text[], $11::uuid[], $12::timestamptz[], $13::text[])
            as n (notice_id, channel, dossier_id, kind, cause, dossier_code, national_status, result_due_at,
                  receiving_agency, sealed_contact, trace_id, wanted_at, instead_of)
        """,
        *(list(column) for column in list(zip(*notices, strict=True))[: len(NEW)]),
    )


async def take_sequences(tx: Tx, counts: Mapping[UUID, int]) -> dict[UUID, int]:
    """Lock the dossiers, add missing ones, and raise the sequence of each by its count, which may be 0.

    Returns each dossier's sequence of internal.notices.v1 before that; dossiers with a count of 0 may be left out.
    """
    rows = await tx.fetch(
        """
        insert into dossiers as d (dossier_id, sequence)
        select dossier_id, count from unnest($1::uuid[], $2::int[]) as c (dossier_id, count) order by 1
        on conflict (dossier_id) do update set sequence = d.sequence + excluded.sequence where excluded.sequence > 0
        returning dossier_id, sequence
        """,
        list(counts),
        list(counts.values()),
    )
    return {row["dossier_id"]: row["sequence"] - counts[row["dossier_id"]] for row in rows}


async def lock_sequences(tx: Tx, dossier_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Each dossier's last sequence of internal.notices.v1; locks the dossiers."""
    rows = await tx.fetch(
        "select dossier_id, sequence from dossiers where dossier_id = any($1::uuid[]) order by 1 for no key update",
        sorted(set(dossier_ids)),
    )
    return {row["dossier_id"]: row["sequence"] for row in rows}


async def save_sequences(tx: Tx, outgoing: Sequence[Outgoing]) -> None:
    """Store the last sequence of each dossier in `outgoing`; the dossiers must be locked."""
    last = {event.dossier_id: event.sequence for event in outgoing}
    if last:
        await tx.execute(
            "update dossiers d set sequence = s.sequence from unnest($1::uuid[], $2::int[]) as s (dossier_id, sequence)"
            " where d.dossier_id = s.dossier_id",
            list(last),
            list(last.values()),
        )


class Outcome(NamedTuple):
    """An event to publish about a notice, which still needs its sequence."""

    notice: Notice
    fact: NoticeOutcome


def number_outcomes(outcomes: Sequence[Outcome], sequences: Mapping[UUID, int]) -> list[Outgoing]:
    """The events, each with its dossier's next sequence after `sequences`."""
    last = dict(sequences)
    outgoing = []
    for notice, fact in outcomes:
        last[notice.dossier_id] += 1
        outgoing.append(Outgoing(notice.dossier_id, last[notice.dossier_id], fact, new_id(), notice.trace_id))
    return outgoing


def sent_outcome(notice: Notice) -> Outcome:
    return Outcome(notice, NoticeSent(notice_id=notice.notice_id, kind=notice.kind, channel=notice.channel))


@dataclass(slots=True)
class NoticeUnit:
    """One batch of consumed events: wanted notices and heartbeats."""

    open_contact: Callable[[UUID, str], Any]
    """(dossier, sealed contact) -> the content. Raises Tampered."""
    available: Collection[str]
    metrics: NoticeMetrics
    wake: Callable[[Iterable[str]], None]
    """Called with the channels on which something may be due."""
    heartbeat_seen: Callable[[datetime], None]
    """Called with the time at which each heartbeat was sent."""
    wanted: list[Notice] = field(default_factory=list)
    heartbeats: list[datetime] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)

    async def save(self, tx: Tx, writes: Writes) -> list[Outgoing]:
        """Store the batch; returns the events to publish."""
        if not self.wanted:
            return self.outgoing
        outcomes = [sent_outcome(notice) for notice in self.wanted if notice.channel == CALL_LIST]
        counts = Counter({notice.dossier_id: 0 for notice in self.wanted})
        counts.update(outcome.notice.dossier_id for outcome in outcomes)
        sequences = await take_sequences(tx, counts)
        add_notices(writes, self.wanted)
        return [*number_outcomes(outcomes, sequences), *self.outgoing]

    def committed(self) -> None:
        if self.wanted:
            listed = [notice for notice in self.wanted if notice.channel == CALL_LIST]
            self.metrics.add_entered(len(self.wanted))
            now = time.time()
            self.metrics.add_waits([now - notice.wanted_at.timestamp() for notice in listed])
            self.metrics.add_listed(len(listed))
            self.wake({notice.channel for notice in self.wanted})
        for sent_at in self.heartbeats:
            self.heartbeat_seen(sent_at)


DUE = LeasedTable(
    table="notices",
    key=("notice_id", "channel"),
    due_at="try_at",
    open_rows="channel = $3 and state in ('due', 'sending')",
    assignments="state = 'sending', taken_at = coalesce(t.taken_at, now())",
    returning=COLUMNS,
)


async def take_due(pool: Pool, channel: str, limit: int, lease_s: float) -> list[Notice]:
    """Up to `limit` due rows of a channel, leased for `lease_s` wall seconds (`shared.postgres.leases`)."""
    return [Notice(*row) for row in await DUE.take_due(pool, limit, lease_s, channel)]


async def begin_handing_over(pool: Pool, notice: Notice) -> bool:
    """Mark that the message goes out now. False when another sender has the row: then it must not be sent."""
    return bool(
        await pool.fetchval(
            "update notices set handing_over_at = now()"
            " where notice_id = $1 and channel = $2 and state = 'sending' and tries = $3 returning true",
            notice.notice_id,
            notice.channel,
            notice.tries,
        )
    )


class Saved(NamedTuple):
    """The events to publish, the rows that were written, and the new rows that take over from failed ones."""

    outgoing: list[Outgoing]
    rows: list[SettledNotice]
    successors: list[Notice]


async def save_settled(tx: Tx, writes: Writes, settled: Sequence[SettledNotice]) -> Saved:
    """Write what became of taken rows. The transaction must end with `writes`.

    A row that was taken again meanwhile is not written: its latest try decides.
    """
    by_try = {(row.notice.notice_id, row.notice.channel, row.notice.tries): row for row in settled}
    sequences = await lock_sequences(tx, (row.notice.dossier_id for row in settled))
    rows = list(by_try.values())
    written = await tx.fetch(
        """
        update notices n
           set state = s.state, reason = s.reason, handing_over_at = null,
               try_at = now() + s.pause_s * interval '1 second',
               settled_at = case when s.state <> 'due' then now() end,
               sealed_contact = case when s.state = 'due' then n.sealed_contact end
          from unnest($1::uuid[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::float8[])
            as s (notice_id, channel, tries, state, reason, pause_s)
         where n.notice_id = s.notice_id and n.channel = s.channel and n.state = 'sending' and n.tries = s.tries
        returning n.notice_id, n.channel, n.tries
        """,
        [row.notice.notice_id for row in rows],
        [row.notice.channel for row in rows],
        [row.notice.tries for row in rows],
        [row.settlement.state for row in rows],
        [row.settlement.reason for row in rows],
        [row.settlement.pause_s for row in rows],
    )
    saved = [by_try[row["notice_id"], row["channel"], row["tries"]] for row in written]
    outcomes: list[Outcome] = []
    successors: list[Notice] = []
    for row in saved:
        notice, settlement = row.notice, row.settlement
        if settlement.state == "sent":
            outcomes.append(sent_outcome(notice))
        elif settlement.state == "failed":
            failed = NoticeFailed(
                notice_id=notice.notice_id,
                kind=notice.kind,
                channel=notice.channel,
                reason=settlement.reason or "",
                next_channel=settlement.next_channel,
            )
            outcomes.append(Outcome(notice, failed))
            assert settlement.next_channel is not None
            successor = notice._replace(channel=settlement.next_channel, instead_of=notice.channel)
            successors.append(successor)
            if successor.channel == CALL_LIST:
                outcomes.append(sent_outcome(successor))
    if successors:
        add_notices(writes, successors)
    outgoing = number_outcomes(outcomes, sequences)
    await save_sequences(tx, outgoing)
    return Saved(outgoing, saved, successors)


class OpenCounts(NamedTuple):
    """Open rows. `oldest_at`: when the oldest was wanted, in seconds since 1970; None when there is none."""

    waiting: int
    sending: int
    oldest_at: float | None


async def count_open(pool: Pool) -> OpenCounts:
    """How many rows wait and are being sent."""
    row = await pool.fetchrow(
        "select count(*) filter (where state = 'due') as waiting, count(*) filter (where state = 'sending') as sending,"
        " extract(epoch from min(wanted_at))::float8 as oldest_at from notices where state in ('due', 'sending')"
    )
    assert row is not None
    return OpenCounts(row["waiting"], row["sending"], row["oldest_at"])
