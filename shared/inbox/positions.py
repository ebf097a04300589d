"""The stream positions: the last processed sequence of each topic and dossier, locked before anything is decided.

The table is called `heads`. Every transaction inserts the positions of new streams before it locks those of known ones,
both in one order: so whoever waits for an inserted position holds no known one that the inserting transaction wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared.contract.envelope import StreamKey
from shared.inbox.sequence import NO_ADVANCE, Advance, LastProcessed
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

LOCK = """
  select h.topic::text as topic, h.dossier_id, h.last, h.fingerprints
    from heads h join unnest($1::text[], $2::uuid[]) as p (t, d) on h.topic = p.t::topic and h.dossier_id = p.d
   order by h.topic, h.dossier_id for update of h
"""


async def lock(tx: Tx, streams: Iterable[StreamKey]) -> dict[StreamKey, LastProcessed]:
    """Lock each stream's position, inserted where it is missing; `held` and `parked` may be read only after this."""
    wanted = set(streams)
    await insert_new(tx, dict.fromkeys(wanted, NO_ADVANCE))
    return await lock_known(tx, wanted)


async def lock_known(tx: Tx, streams: Iterable[StreamKey]) -> dict[StreamKey, LastProcessed]:
    """Lock the positions that exist."""
    ordered = sorted(set(streams))
    if not ordered:
        return {}
    rows = await tx.fetch(LOCK, [topic for topic, _ in ordered], [dossier_id for _, dossier_id in ordered])
    return {StreamKey(row["topic"], row["dossier_id"]): LastProcessed(row["last"], row["fingerprints"]) for row in rows}


async def insert_new(tx: Tx, advances: Mapping[StreamKey, Advance]) -> set[StreamKey]:
    """Insert the positions that are missing, each already advanced; returns the streams whose position was inserted.

    Waits for a transaction that is inserting one of them. When that one rolls back, this one inserts the position.
    """
    if not advances:
        return set()
    fingerprints = [row.fingerprints for row in advances.values()]
    rows = await tx.fetch(
        """
        insert into heads (topic, dossier_id, last, fingerprints)
        select t::topic, d, l, ($4::int[])[s + 1 : s + l]
          from unnest($1::text[], $2::uuid[], $3::int[], $5::int[]) as p (t, d, l, s) order by 1, 2
        on conflict do nothing returning topic::text as topic, dossier_id
        """,
        [topic for topic, _ in advances],
        [dossier_id for _, dossier_id in advances],
        [row.last for row in advances.values()],
        [one for group in fingerprints for one in group],
        _offsets(fingerprints),
    )
    return {StreamKey(row["topic"], row["dossier_id"]) for row in rows}


def advance(writes: Writes, advances: Mapping[StreamKey, Advance]) -> None:
    """Add the update of these locked positions to `writes`."""
    if not advances:
        return
    added = [row.fingerprints[row.first - 1 :] for row in advances.values()]
    writes.add(
        """
        update heads h set last = l, fingerprints = h.fingerprints || ($4::int[])[s + 1 : s + n]
          from unnest($1::text[], $2::uuid[], $3::int[], $5::int[], $6::int[]) as p (t, d, l, s, n)
         where h.topic = t::topic and h.dossier_id = d
        """,
        [topic for topic, _ in advances],
        [dossier_id for _, dossier_id in advances],
        [row.last for row in advances.values()],
        [one for group in added for one in group],
        _offsets(added),
        [len(group) for group in added],
    )


def _offsets(groups: Sequence[Sequence[Any]]) -> list[int]:
    """Where each group begins when all are put into one array."""
    offsets, at = [], 0
    for group in groups:
        offsets.append(at)
        at += len(group)
    return offsets
