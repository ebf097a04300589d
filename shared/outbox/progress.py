"""How far each lane was sent, to which cluster, and what the broker acknowledged last."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx


class NotOurs(OSError):
    """Another process owns the lane now; whatever we sent of it will be known as a repeat."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One acknowledged chunk of a lane. `marks`: (topic, partition, first offset, last offset); `recorded`: when each
    event was recorded, `sent_at`: when the last of them was acknowledged (seconds since 1970)."""

    lane: int
    epoch: int
    from_id: int
    to_id: int
    marks: tuple[tuple[str, int, int, int], ...]
    recorded: tuple[float, ...]
    sent_at: float
    real: int = 0
    """How many of them are a dossier's: the others are heartbeats, and documents that the highest version wins of."""

    @property
    def count(self) -> int:
        return len(self.recorded)


@dataclass(slots=True)
class Owned:
    """A lane that is ours: since which epoch, and up to which event the broker has it all."""

    epoch: int
    sent_to: int


async def begin_epoch(pool: Pool, lanes: Sequence[int]) -> dict[int, Owned]:
    """Count the epochs up; the former owner's cursor updates miss from now on."""
    rows = await pool.fetch(
        "update lanes set epoch = epoch + 1 where lane = any($1::smallint[]) returning lane, epoch, sent_to",
        list(lanes),
    )
    return {row["lane"]: Owned(row["epoch"], row["sent_to"]) for row in rows}


async def confirm(pool: Pool, lanes: Mapping[int, Owned]) -> None:
    """Raises NotOurs when a lane has a new owner, or was sent back to its oldest event."""
    epochs = {row["lane"]: row["epoch"] for row in await pool.fetch("select lane, epoch from lanes")}
    if any(epochs[lane] != owned.epoch for lane, owned in lanes.items()):
        raise NotOurs("a lane has a new owner")


async def next_chunks(pool: Pool, after: Mapping[int, int], limit: int, most_bytes: int) -> dict[int, list[Any]]:
    """Each lane's next events after an id, by id. Lanes that have none are not in the answer.

    At most `limit` of a lane; and none after `most_bytes` of their data, whatever the size of the last.
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
        most_bytes,
    )
    chunks: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        chunks[row["lane"]].append(row)
    for chunk in chunks.values():
        # Each comes in this order already: asked for, PostgreSQL sorts whole rows of all lanes, through a file.
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
"""One statement and so one transaction, its times by PostgreSQL's clock. A lane is its partitions' number in every
topic."""


async def advance(pool: Pool, sent: Sequence[Sent]) -> str:
    """Remember acknowledged chunks, of a lane in their order. Returns why the broker must have lost something, or an
    empty string.

    A loss is an offset not above the last acknowledged one in a lane that is still ours: then nothing from there on is
    remembered and all lanes go back. A former owner's late acknowledgement lies below the new owner's, and nothing was
    lost. Raises NotOurs when a lane's epoch has moved on; the other lanes' chunks are remembered.
    """
    left = list(sent)
    while left:
        marks: dict[tuple[str, int], tuple[int, int]] = {}
        part = 0
        for row in left:
            if any(first <= marks[topic, at][1] for topic, at, first, _ in row.marks if (topic, at) in marks):
                break  # a loss between two of them: once the first is remembered, the second shows it
            for topic, at, first, last in row.marks:
                marks[topic, at] = (marks[topic, at][0] if (topic, at) in marks else first, last)
            part += 1
        if lost := await _advance(pool, left[:part], marks):
            return lost
        left = left[part:]
    return ""


async def _advance(pool: Pool, sent: Sequence[Sent], marks: Mapping[tuple[str, int], tuple[int, int]]) -> str:
    now = time.time()
    found = await pool.fetchrow(
        ADVANCE,
        [row.lane for row in sent],
        [row.epoch for row in sent],
        [row.from_id for row in sent],
        [row.to_id for row in sent],
        [topic for topic, _ in marks],
        [partition for _, partition in marks],
        [first for first, _ in marks.values()],
        [last for _, last in marks.values()],
        [row.count for row in sent],
        [min(row.recorded) for row in sent],
        [max(row.recorded) for row in sent],
        [max(now - row.sent_at, 0.0) for row in sent],
    )
    assert found is not None
    if found["topic"] is not None:
        async with pool.acquire() as tx:
            await start_over(tx)
        place = f"{found['topic']}-{found['partition']}"
        return f"{place} acknowledged offset {found['first']} after {found['last_offset']}"
    if found["moved"] != len({row.lane for row in sent}):
        raise NotOurs("a lane has a new owner")
    return ""


async def _start_over(tx: Tx) -> None:
    await tx.execute("update lanes set sent_to = 0, epoch = epoch + 1")
    await tx.execute("delete from broker_marks")
    await tx.execute("delete from sent")


async def meet_cluster(pool: Pool, cluster_id: str) -> bool:
    """Remember the cluster; True when it is another than last time, and every lane was set back to its start."""
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


async def list_marks(pool: Pool) -> dict[tuple[str, int], int]:
    """(topic, partition) -> the last offset the broker acknowledged there."""
    rows = await pool.fetch("select topic, partition, last_offset from broker_marks")
    return {(row["topic"], row["partition"]): row["last_offset"] for row in rows}


async def start_over(tx: Tx) -> None:
    """The broker has lost something: every lane goes back to its oldest event, and former owners' updates miss."""
    async with tx.transaction():
        await _start_over(tx)


async def is_known_cluster(pool: Pool, cluster_id: str) -> bool:
    found = await pool.fetchval("select cluster_id from broker_cluster where side = 'relay'")
    return bool(found == cluster_id)


async def pending(pool: Pool) -> tuple[int, float | None]:
    """How many events are unsent (up to 10,000 a lane) and when the oldest was recorded (seconds since 1970)."""
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
