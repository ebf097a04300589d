"""The relay's progress: up to which event each lane is sent, to which cluster, and the last acknowledged offsets."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx


class NotOwner(OSError):
    """Another process owns the lane now. What this process has sent of it, consumers treat as repeats."""


class Acknowledged(NamedTuple):
    """The first and the last offset that the broker has acknowledged for a chunk in one partition."""

    topic: str
    partition: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Sent:
    """One acknowledged chunk of a lane: the events from `from_id` to `to_id`. Times are seconds since 1970."""

    lane: int
    epoch: int
    from_id: int
    to_id: int
    acknowledged: tuple[Acknowledged, ...]
    recorded: tuple[float, ...]
    """When each event was recorded."""
    sent_at: float
    """When the broker had acknowledged all of them."""
    at_stake: int = 0
    """How many of the events belong to a dossier. The others are heartbeats and procedures."""

    @property
    def count(self) -> int:
        return len(self.recorded)


@dataclass(slots=True)
class Owned:
    """A lane that this process owns: its epoch, and the id up to which the broker has acknowledged every event."""

    epoch: int
    sent_to: int


async def begin_epoch(pool: Pool, lanes: Sequence[int]) -> dict[int, Owned]:
    """Raise the lanes' epochs, so that every later cursor update of a former owner has no effect."""
    rows = await pool.fetch(
        "update lanes set epoch = epoch + 1 where lane = any($1::smallint[]) returning lane, epoch, sent_to",
        list(lanes),
    )
    return {row["lane"]: Owned(row["epoch"], row["sent_to"]) for row in rows}


async def confirm(pool: Pool, lanes: Mapping[int, Owned]) -> None:
    """Raise NotOwner when a lane has a new owner or was set back to its oldest event."""
    epochs = {row["lane"]: row["epoch"] for row in await pool.fetch("select lane, epoch from lanes")}
    if any(epochs[lane] != owned.epoch for lane, owned in lanes.items()):
        raise NotOwner("a lane has a new owner")


async def next_chunks(pool: Pool, after: Mapping[int, int], limit: int, max_bytes: int) -> dict[int, list[Any]]:
    """The next events of each lane, in the order of their ids. `after`: lane -> the id after which to begin.

    At most `limit` events of a lane, and none after the event with which their data reaches `max_bytes`. A lane
    without events is left out.
    """
    rows = await pool.fetch(
        """
        select e.lane, e.id, e.topic::text as topic, e.dossier_id, e.key, e.sequence, e.ce_id, e.type, e.trace_id,
               e.data, e.recorded_at
          from unnest($1::smallint[], $2::bigint[]) as l (lane, sent_to) cross join lateral (
            select e.*, sum(octet_length(e.data)) over (order by e.id) - octet_length(e.data) as bytes_before
              from (select * from events e where e.lane = l.lane and e.id > l.sent_to order by e.id limit $3) e) e
         where e.bytes_before < $4
        """,
        list(after),
        list(after.values()),
        limit,
        max_bytes,
    )
    chunks: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        chunks[row["lane"]].append(row)
    for chunk in chunks.values():
        # Sorted already, so this costs nothing; `order by` would make PostgreSQL sort the whole rows of all lanes.
        chunk.sort(key=itemgetter("id"))
    return dict(chunks)


ADVANCE = """
  with s as (
    select * from unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::bigint[], $9::int[], $10::float8[],
      $11::float8[], $12::float8[]) as s (lane, epoch, from_id, to_id, events, recorded_from, recorded_to, ago)
  ), ends as (
    select lane, epoch, max(to_id) as to_id from s group by lane, epoch
  ), m as (
    select * from unnest($5::text[], $6::smallint[], $7::bigint[], $8::bigint[]) as m (topic, partition, first, last)
  ), lost as (
    select topic, partition, m.first, b.last_offset from m join broker_marks b using (topic, partition)
      join ends on ends.lane = partition join lanes l on l.lane = ends.lane and l.epoch = ends.epoch
     where m.first <= b.last_offset order by topic, partition limit 1
  ), moved as (
    update lanes l set sent_to = ends.to_id from ends
     where l.lane = ends.lane and l.epoch = ends.epoch and not exists (select from lost) returning l.lane
  ), marked as (
    insert into broker_marks (topic, partition, last_offset)
    select topic, partition, m.last from m where partition in (select lane from moved) order by topic, partition
    on conflict (topic, partition) do update set last_offset = excluded.last_offset
  ), logged as (
    insert into sent (lane, from_id, to_id, events, recorded_from, recorded_to, sent_at)
    select lane, from_id, to_id, events, to_timestamp(recorded_from), to_timestamp(recorded_to),
           clock_timestamp() - ago * interval '1 second'
      from s join moved using (lane)
  )
  select (select count(*) from moved) as moved, lost.* from (select) as once left join lost on true
"""
"""One statement, so one transaction, with PostgreSQL's clock. A lane's number is its partition's number in every topic.
"""


async def advance(pool: Pool, sent: Sequence[Sent]) -> str:
    """Save acknowledged chunks, those of a lane in their order. Returns a sentence about a loss of the broker, or "".

    The broker has lost records when it acknowledges an offset that is not above the last one, in a lane that this
    process still owns. Then no chunk from that one on is saved, and all lanes are set back. (The late acknowledgement
    of a former owner is below the new owner's, and nothing is lost.) Raises NotOwner when a lane has another epoch;
    the chunks of the other lanes are saved.
    """
    unsaved = list(sent)
    while unsaved:
        offsets: dict[tuple[str, int], tuple[int, int]] = {}
        part = 0
        for row in unsaved:
            if any(
                first <= offsets[topic, partition][1]
                for topic, partition, first, _ in row.acknowledged
                if (topic, partition) in offsets
            ):
                break  # a loss between two chunks: once the first is saved, the second shows it
            for topic, partition, first, last in row.acknowledged:
                known = offsets.get((topic, partition))
                offsets[topic, partition] = (known[0] if known else first, last)
            part += 1
        if loss := await _advance(pool, unsaved[:part], offsets):
            return loss
        unsaved = unsaved[part:]
    return ""


async def _advance(pool: Pool, sent: Sequence[Sent], offsets: Mapping[tuple[str, int], tuple[int, int]]) -> str:
    """`offsets`: (topic, partition) -> first and last acknowledged offset of these chunks."""
    now = time.time()
    result = await pool.fetchrow(
        ADVANCE,
        [row.lane for row in sent],
        [row.epoch for row in sent],
        [row.from_id for row in sent],
        [row.to_id for row in sent],
        [topic for topic, _ in offsets],
        [partition for _, partition in offsets],
        [first for first, _ in offsets.values()],
        [last for _, last in offsets.values()],
        [row.count for row in sent],
        [min(row.recorded) for row in sent],
        [max(row.recorded) for row in sent],
        [max(now - row.sent_at, 0.0) for row in sent],
    )
    assert result is not None
    if result["topic"] is not None:
        async with pool.acquire() as tx:
            await start_over(tx)
        partition = f"{result['topic']}-{result['partition']}"
        return f"{partition} acknowledged offset {result['first']} after {result['last_offset']}"
    if result["moved"] != len({row.lane for row in sent}):
        raise NotOwner("a lane has a new owner")
    return ""


async def _start_over(tx: Tx) -> None:
    await tx.execute("update lanes set sent_to = 0, epoch = epoch + 1")
    await tx.execute("delete from broker_marks")
    await tx.execute("delete from sent")


async def save_cluster(pool: Pool, cluster_id: str) -> bool:
    """Save the cluster's id. Returns whether it differs from the last one; then every lane is set back as well."""
    async with pool.acquire() as tx, tx.transaction():
        await tx.execute("lock table broker_cluster in exclusive mode")
        known = await tx.fetchval("select cluster_id from broker_cluster where side = 'relay'")
        if known == cluster_id:
            return False
        await tx.execute(
            "insert into broker_cluster (side, cluster_id) values ('relay', $1)"
            " on conflict (side) do update set cluster_id = excluded.cluster_id, seen_at = clock_timestamp()",
            cluster_id,
        )
        if known is not None:
            await _start_over(tx)
        return known is not None


async def list_acknowledged(pool: Pool) -> dict[tuple[str, int], int]:
    """(topic, partition) -> the last offset that the broker has acknowledged there."""
    rows = await pool.fetch("select topic, partition, last_offset from broker_marks")
    return {(row["topic"], row["partition"]): row["last_offset"] for row in rows}


async def start_over(tx: Tx) -> None:
    """Set every lane back to its oldest event with a new epoch, because the broker has lost records."""
    async with tx.transaction():
        await _start_over(tx)


async def is_known_cluster(pool: Pool, cluster_id: str) -> bool:
    """Whether this is the cluster that was saved last."""
    known = await pool.fetchval("select cluster_id from broker_cluster where side = 'relay'")
    return bool(known == cluster_id)


async def pending(pool: Pool) -> tuple[int, float | None]:
    """How many events are unsent (at most 10,000 per lane), and when the oldest was recorded (seconds since 1970)."""
    row = await pool.fetchrow(
        """
        select (select count(*) from lanes l cross join lateral (
                  select 1 from events e where e.lane = l.lane and e.id > l.sent_to order by e.id limit 10000) u)
                 as pending,
               (select min(o.recorded_at) from lanes l cross join lateral (
                  select e.recorded_at from events e where e.lane = l.lane and e.id > l.sent_to
                   order by e.id limit 1) o) as oldest
        """
    )
    assert row is not None
    return row["pending"], row["oldest"].timestamp() if row["oldest"] else None
