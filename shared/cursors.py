"""How far each lane was sent, to which cluster, and what the broker acknowledged last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.database import Pool, Tx


class NotOurs(OSError):
    """Another process owns the lane now; whatever we sent of it will be known as a repeat."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One acknowledged chunk of a lane. `marks`: (topic, partition, first offset, last offset); `recorded`: when each
    event was recorded (seconds since 1970)."""

    lane: int
    epoch: int
    from_id: int
    to_id: int
    marks: tuple[tuple[str, int, int, int], ...]
    recorded: tuple[float, ...]

    @property
    def count(self) -> int:
        return len(self.recorded)


async def begin_epoch(pool: Pool, lanes: Sequence[int]) -> dict[int, int]:
    """Count the epochs up; the former owner's cursor updates miss from now on. Returns lane -> epoch."""
    rows = await pool.fetch(
        "update lanes set epoch = epoch + 1 where lane = any($1::smallint[]) returning lane, epoch", list(lanes)
    )
    return {row["lane"]: row["epoch"] for row in rows}


async def next_chunks(pool: Pool, lanes: Mapping[int, int], limit: int, most_bytes: int) -> dict[int, list[Any]]:
    """The next unsent events of each lane, by id. Lanes with nothing to send are not in the answer.

    At most `limit` of a lane; and none after `most_bytes` of their data, whatever the size of the last.
    """
    rows = await pool.fetch(
        """
        select e.lane, e.id, e.topic::text as topic, e.dossier_id, e.key, e.sequence, e.ce_id, e.type, e.trace_id,
               e.data, e.recorded_at
          from lanes l cross join lateral (
            select e.*, sum(octet_length(e.data)) over (order by e.id) - octet_length(e.data) as bytes_before
              from (select * from events e where e.lane = l.lane and e.id > l.sent_to order by e.id limit $2) e) e
         where l.lane = any($1::smallint[]) and e.bytes_before < $3
         order by e.lane, e.id
        """,
        list(lanes),
        limit,
        most_bytes,
    )
    chunks: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        chunks[row["lane"]].append(row)
    return dict(chunks)


async def advance(pool: Pool, sent: Sequence[Sent]) -> str:
    """Remember acknowledged chunks. Returns why the broker must have lost something, or an empty string.

    A loss is an offset not above the last acknowledged one: then nothing is remembered and all lanes go back.
    Raises NotOurs when a lane's epoch has moved on.
    """
    marks = sorted({(topic, partition) for row in sent for topic, partition, _, _ in row.marks})
    async with pool.acquire() as tx, tx.transaction():
        moved = await tx.fetch(
            """
            update lanes l set sent_to = s.to_id
              from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as s (lane, epoch, to_id)
             where l.lane = s.lane and l.epoch = s.epoch returning l.lane
            """,
            [row.lane for row in sent],
            [row.epoch for row in sent],
            [row.to_id for row in sent],
        )
        if len(moved) != len(sent):
            raise NotOurs("a lane has a new owner")
        # Only now: a former owner's late acknowledgement lies below the new owner's, and nothing was lost.
        known = {
            (row["topic"], row["partition"]): row["last_offset"]
            for row in await tx.fetch(
                "select topic, partition, last_offset from broker_marks m join unnest($1::text[], $2::smallint[])"
                " as u (t, p) on m.topic = u.t and m.partition = u.p",
                [topic for topic, _ in marks],
                [partition for _, partition in marks],
            )
        }
        for row in sent:
            for topic, partition, first, _ in row.marks:
                if first <= known.get((topic, partition), -1):
                    await _start_over(tx)
                    return f"{topic}-{partition} acknowledged offset {first} after {known[topic, partition]}"
        await tx.execute(
            """
            insert into broker_marks (topic, partition, last_offset)
            select t, p, o from unnest($1::text[], $2::smallint[], $3::bigint[]) as m (t, p, o) order by t, p
            on conflict (topic, partition) do update set last_offset = excluded.last_offset
            """,
            *[
                list(column)
                for column in zip(*((t, p, last) for row in sent for t, p, _, last in row.marks), strict=True)
            ],
        )
        await tx.execute(
            "insert into sent (lane, from_id, to_id) select * from unnest($1::smallint[], $2::bigint[], $3::bigint[])",
            [row.lane for row in sent],
            [row.from_id for row in sent],
            [row.to_id for row in sent],
        )
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


async def start_over(pool: Pool) -> None:
    """The broker has lost something: every lane goes back to its oldest event, and former owners' updates miss."""
    async with pool.acquire() as tx, tx.transaction():
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
