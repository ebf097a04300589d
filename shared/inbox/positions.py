"""How far each pair of topic and dossier was heard: rows that are locked before anything about it is decided.

Everybody writes new heads before locking old ones, both in one order: so nobody who waits for a new head has an old one
that its writer wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared.inbox.sequence import LastProcessed, StreamKey
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

LOCK = """
  select h.topic::text as topic, h.dossier_id, h.last, h.fingerprints
    from heads h join unnest($1::text[], $2::uuid[]) as p (t, d) on h.topic = p.t::topic and h.dossier_id = p.d
   order by h.topic, h.dossier_id for update of h
"""


async def lock(tx: Tx, pairs: Iterable[StreamKey]) -> dict[StreamKey, LastProcessed]:
    """Lock each pair's head, made where it was not; `held` and `parked` are read only after this."""
    wanted = set(pairs)
    await begin(tx, {pair: (0, []) for pair in wanted})
    return await lock_known(tx, wanted)


async def lock_known(tx: Tx, pairs: Iterable[StreamKey]) -> dict[StreamKey, LastProcessed]:
    """Lock the heads that are there."""
    ordered = sorted(set(pairs))
    if not ordered:
        return {}
    rows = await tx.fetch(LOCK, [pair[0] for pair in ordered], [pair[1] for pair in ordered])
    return {(row["topic"], row["dossier_id"]): LastProcessed(row["last"], row["fingerprints"]) for row in rows}


async def begin(tx: Tx, heads: Mapping[StreamKey, tuple[int, list[int]]]) -> set[StreamKey]:
    """Write the heads (last, fingerprints) that are not there, and say which those were.

    Who is writing one of them just now is awaited: then it is his, or, where he went back, ours.
    """
    if not heads:
        return set()
    pairs = list(heads)
    marks = [heads[pair][1] for pair in pairs]
    rows = await tx.fetch(
        """
        insert into heads (topic, dossier_id, last, fingerprints)
        select t::topic, d, l, ($4::int[])[s + 1 : s + l]
          from unnest($1::text[], $2::uuid[], $3::int[], $5::int[]) as p (t, d, l, s) order by 1, 2
        on conflict do nothing returning topic::text as topic, dossier_id
        """,
        [pair[0] for pair in pairs],
        [pair[1] for pair in pairs],
        [heads[pair][0] for pair in pairs],
        [mark for some in marks for mark in some],
        starts(marks),
    )
    return {(row["topic"], row["dossier_id"]) for row in rows}


def add_marks(writes: Writes, advanced: Mapping[StreamKey, tuple[int, int, list[int]]]) -> None:
    """Move locked heads on: pair -> (from sequence, to sequence, all fingerprints)."""
    if not advanced:
        return
    added = [marks[first - 1 :] for first, _, marks in advanced.values()]
    writes.add(
        """
        update heads h set last = l, fingerprints = h.fingerprints || ($4::int[])[s + 1 : s + n]
          from unnest($1::text[], $2::uuid[], $3::int[], $5::int[], $6::int[]) as p (t, d, l, s, n)
         where h.topic = t::topic and h.dossier_id = d
        """,
        [topic for topic, _ in advanced],
        [dossier_id for _, dossier_id in advanced],
        [last for _, last, _ in advanced.values()],
        [mark for marks in added for mark in marks],
        starts(added),
        [len(marks) for marks in added],
    )


def starts(groups: Sequence[Sequence[Any]]) -> list[int]:
    """Where each group begins when all are put into one array."""
    starts, at = [], 0
    for group in groups:
        starts.append(at)
        at += len(group)
    return starts
