"""What the consumer remembers in its database: heads, held and parked events, and the log of effects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shared.contract.envelope import Malformed, Received, Record, fingerprint, parse
from shared.inbox import positions, sequence
from shared.inbox.sequence import LastProcessed, Plan, Position, StreamKey
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

APPLIED = {"topic": "topic", "dossier_id": "uuid", "from_sequence": "int", "to_sequence": "int"}
RECORD_COLUMNS = "key, header_names, header_values, value, sent_at"


def record_from(row: Any) -> Record:
    """The record as it was when it was held or parked."""
    return Record(
        row["topic"],
        row["partition"],
        row["record_offset"],
        row["key"],
        tuple(zip(row["header_names"], row["header_values"], strict=True)),
        row["value"],
        row["sent_at"],
    )


async def look(
    tx: Tx,
    events: Sequence[Received],
    pairs: set[StreamKey],
    poison: Mapping[Position, tuple[str, str]],
    *,
    singly: bool,
) -> tuple[Plan, Container[StreamKey]]:
    """What to do with `events`, the heads of `pairs` locked; and the pairs whose heads are written already.

    Most of what comes is a dossier's first on its topic and is applied whole: such heads are written at once, as they
    will be, in the hope that they are new; which of them were is PostgreSQL's word. The others' are locked and read.
    """
    if singly:
        all_old = await positions.lock(tx, pairs)
        return await _plan(tx, events, all_old, all_old, poison, singly=True), ()
    firsts = {
        (event.topic, event.dossier_id) for event in events if event.dossier_id is not None and event.sequence == 1
    } & pairs
    # Nothing can be held or parked of a pair without a head.
    hoped = sequence.plan(
        [event for event in events if event.dossier_id is None or (event.topic, event.dossier_id) in firsts],
        {pair: LastProcessed() for pair in firsts},
        {},
        {},
        poison,
    )
    aside = hoped.list_aside()
    whole = {pair: (last, marks) for pair, (_, last, marks) in hoped.heads.items() if pair not in aside}
    begun = await positions.begin(tx, {pair: whole.get(pair, (0, [])) for pair in pairs}) & whole.keys()
    if len(begun) == len(pairs):
        return hoped, begun
    old = await positions.lock_known(tx, pairs - begun)
    return await _plan(
        tx, events, {**old, **{pair: LastProcessed() for pair in begun}}, old, poison, singly=False
    ), begun


async def _plan(
    tx: Tx,
    events: Sequence[Received],
    told: Mapping[StreamKey, LastProcessed],
    old: Iterable[StreamKey],
    poison: Mapping[Position, tuple[str, str]],
    *,
    singly: bool,
) -> Plan:
    """`old`: the pairs of which something may be held or parked."""
    held = await list_held(tx, old) if old else {}
    blocked = await list_blocking(tx, old) if old else {}
    return sequence.plan(events, told, held, blocked, poison, singly=singly)


async def list_held(tx: Tx, pairs: Iterable[StreamKey]) -> dict[StreamKey, dict[int, Received]]:
    """What waits for each pair, by sequence."""
    found: dict[StreamKey, dict[int, Received]] = defaultdict(dict)
    dossiers = list({dossier_id for _, dossier_id in pairs})
    rows = await tx.fetch(
        f"select topic::text as topic, dossier_id, sequence, partition, record_offset, {RECORD_COLUMNS}"
        " from held where dossier_id = any($1::uuid[])",
        dossiers,
    )
    for row in rows:
        found[row["topic"], row["dossier_id"]][row["sequence"]] = _again(row)
    return found


def _again(row: Any) -> Received:
    """A held record read once more; another release may judge it otherwise than the one that held it."""
    record = record_from(row)
    try:
        return parse(record)
    except Malformed as wrong:
        said = dict(record.headers)
        ce_id = UUID(said["ce_id"].decode())
        return Received(
            record,
            row["dossier_id"],
            row["sequence"],
            ce_id,
            ce_id,
            row["sent_at"],
            "",
            None,
            wrong.reason,
            wrong.detail,
        )


async def list_blocking(tx: Tx, pairs: Iterable[StreamKey]) -> dict[StreamKey, dict[int, int]]:
    """Places that are parked and block, with their fingerprints, by pair."""
    found: dict[StreamKey, dict[int, int]] = defaultdict(dict)
    rows = await tx.fetch(
        "select topic, dossier_id, sequence, ce_id from parked"
        " where dossier_id = any($1::uuid[]) and state = 'parked' and blocks",
        list({dossier_id for _, dossier_id in pairs}),
    )
    for row in rows:
        found[row["topic"], row["dossier_id"]][row["sequence"]] = fingerprint(row["ce_id"])
    return found


async def save(tx: Tx, writes: Writes, plan: Plan, begun: Container[StreamKey] = ()) -> None:
    """Write what the plan decided, with the effect it belongs to. `begun`: heads that `positions.begin` has written.

    What every batch has goes with its other `writes`, the rest is written at once.
    """
    if plan.heads:
        rows = [(*pair, first, last) for pair, (first, last, _) in plan.heads.items()]
        writes.insert("applied", APPLIED, rows)
        positions.add_marks(writes, {pair: head for pair, head in plan.heads.items() if pair not in begun})
    if plan.released:
        await tx.execute(
            """
            delete from held using unnest($1::text[], $2::uuid[], $3::int[]) as r (t, d, s)
             where topic = r.t::topic and dossier_id = r.d and sequence = r.s
            """,
            *_columns(plan.released),
        )
    if plan.waits:
        await tx.execute(
            """
            update held set reason = r.why from unnest($1::text[], $2::uuid[], $3::text[]) as r (t, d, why)
             where topic = r.t::topic and dossier_id = r.d and reason <> r.why
            """,
            *_columns([(*pair, why) for pair, why in plan.waits.items()]),
        )
    for event, reason in plan.hold:
        await _hold(tx, event, reason)
    for event, reason, detail, blocks in plan.park:
        await park(tx, event.record, event, reason, detail, blocks=blocks)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def _hold(tx: Tx, event: Received, reason: str) -> None:
    record = event.record
    await tx.execute(
        f"""
        insert into held (topic, dossier_id, sequence, reason, partition, record_offset, {RECORD_COLUMNS})
        values ($1::text::topic, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict do nothing
        """,
        event.topic,
        event.dossier_id,
        event.sequence,
        reason,
        record.partition,
        record.offset,
        *_lossless(record),
    )


async def park(tx: Tx, record: Record, event: Received | None, reason: str, detail: str, *, blocks: bool) -> bool:
    """Put a record aside for a person; False when it lies there already: the same record parks once."""
    done = await tx.execute(
        f"""
        insert into parked (topic, partition, record_offset, dossier_id, sequence, ce_id, blocks, digest, reason,
                            detail, {RECORD_COLUMNS})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
        on conflict (topic, digest) do update set state = 'parked', reason = excluded.reason, detail = excluded.detail,
          blocks = excluded.blocks, dossier_id = excluded.dossier_id, sequence = excluded.sequence,
          ce_id = excluded.ce_id, settled_at = null, settled_why = null
          where excluded.blocks
        """,
        record.topic,
        record.partition,
        record.offset,
        event.dossier_id if event else None,
        event.sequence if event else None,
        event.ce_id if event else None,
        blocks,
        record.digest(),
        _storable(reason),
        _storable(detail),
        *_lossless(record),
    )
    return bool(done != "INSERT 0 0")


def _storable(text: str) -> str:
    # PostgreSQL's text cannot hold NUL, and what is quoted here is whatever a stranger sent.
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _lossless(record: Record) -> tuple[Any, ...]:
    names = [_storable(name) for name, _ in record.headers]
    values = [value if value is not None else b"" for _, value in record.headers]
    return record.key, names, values, record.value, record.sent_at


async def discard(tx: Tx, pair: StreamKey, sequence: int, ce_id: UUID) -> None:
    """A person decided that this place has no effect: the head passes over it.

    What is held there waits for nobody any more; called `gap` it is looked for even if nobody goes on from here.
    """
    await tx.execute(
        "update held set reason = 'gap' where topic = $1::text::topic and dossier_id = $2 and reason = 'behind'", *pair
    )
    await tx.execute(
        "update heads set last = $3, fingerprints = fingerprints || $4::int"
        " where topic = $1::text::topic and dossier_id = $2 and last = $3 - 1",
        *pair,
        sequence,
        fingerprint(ce_id),
    )
