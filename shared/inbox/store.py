"""The inbox in the consumer's database: stream positions, held events, parked records, and the log of effects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shared.contract.envelope import Malformed, Received, Record, StreamKey, fingerprint, parse
from shared.inbox import positions, sequence
from shared.inbox.sequence import NO_ADVANCE, NOTHING, Cause, Hold, LastProcessed, Plan, Position
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


async def plan_batch(
    tx: Tx,
    events: Sequence[Received],
    streams: set[StreamKey],
    poison: Mapping[Position, Cause],
    *,
    singly: bool,
) -> tuple[Plan, Container[StreamKey]]:
    """Lock the positions of `streams` and plan what to do with `events`.

    Returns the plan, and the streams whose position is written already. Most events are the first ones of a dossier on
    their topic and are applied whole: their positions are inserted at once with their final values, and PostgreSQL
    says which ones were new. The others are locked and read.
    """
    if singly:
        known = await positions.lock(tx, streams)
        return await _plan(tx, events, known, known, poison, singly=True), ()
    firsts = {event.stream for event in events if event.stream is not None and event.sequence == 1} & streams
    # A stream without a position has nothing held and nothing parked.
    assumed = sequence.plan(
        [event for event in events if event.stream is None or event.stream in firsts],
        dict.fromkeys(firsts, NOTHING),
        {},
        {},
        poison,
    )
    aside = assumed.list_aside()
    whole = {stream: row for stream, row in assumed.advances.items() if stream not in aside}
    new = {stream: whole.get(stream, NO_ADVANCE) for stream in streams}
    inserted = await positions.insert_new(tx, new) & whole.keys()
    if len(inserted) == len(streams):
        return assumed, inserted
    known = await positions.lock_known(tx, streams - inserted)
    all_streams = {**known, **dict.fromkeys(inserted, NOTHING)}
    return await _plan(tx, events, all_streams, known, poison, singly=False), inserted


async def _plan(
    tx: Tx,
    events: Sequence[Received],
    last_processed: Mapping[StreamKey, LastProcessed],
    known: Collection[StreamKey],
    poison: Mapping[Position, Cause],
    *,
    singly: bool,
) -> Plan:
    """`known`: the streams that may have held or parked events."""
    held = await list_held(tx, known) if known else {}
    blocked = await list_blocking(tx, known) if known else {}
    return sequence.plan(events, last_processed, held, blocked, poison, singly=singly)


async def list_held(tx: Tx, streams: Iterable[StreamKey]) -> dict[StreamKey, dict[int, Received]]:
    """The held events of each stream, by sequence."""
    found: dict[StreamKey, dict[int, Received]] = defaultdict(dict)
    rows = await tx.fetch(
        f"select topic::text as topic, dossier_id, sequence, partition, record_offset, {RECORD_COLUMNS}"
        " from held where dossier_id = any($1::uuid[])",
        list({stream.dossier_id for stream in streams}),
    )
    for row in rows:
        found[StreamKey(row["topic"], row["dossier_id"])][row["sequence"]] = _parse_again(row)
    return found


def _parse_again(row: Any) -> Received:
    """A held record, parsed once more: this release may judge it otherwise than the release that held it."""
    record = record_from(row)
    try:
        return parse(record)
    except Malformed as error:
        headers = dict(record.headers)
        ce_id = UUID(headers["ce_id"].decode())
        return Received(
            record,
            StreamKey(row["topic"], row["dossier_id"]),
            row["dossier_id"],
            row["sequence"],
            ce_id,
            ce_id,
            row["sent_at"],
            "",
            None,
            error.reason,
            error.detail,
        )


async def list_blocking(tx: Tx, streams: Iterable[StreamKey]) -> dict[StreamKey, dict[int, int]]:
    """The parked sequences that block each stream, with their fingerprints."""
    found: dict[StreamKey, dict[int, int]] = defaultdict(dict)
    rows = await tx.fetch(
        "select topic, dossier_id, sequence, ce_id from parked"
        " where dossier_id = any($1::uuid[]) and state = 'parked' and blocks",
        list({stream.dossier_id for stream in streams}),
    )
    for row in rows:
        found[StreamKey(row["topic"], row["dossier_id"])][row["sequence"]] = fingerprint(row["ce_id"])
    return found


async def save(tx: Tx, writes: Writes, plan: Plan, inserted: Container[StreamKey] = ()) -> None:
    """Write what the plan decided, in the transaction of the effects.

    `inserted`: streams whose position `plan_batch` has written. What every batch has is added to `writes`; the rest is
    written at once.
    """
    if plan.advances:
        writes.insert("applied", APPLIED, [(*stream, row.first, row.last) for stream, row in plan.advances.items()])
        positions.advance(writes, {stream: row for stream, row in plan.advances.items() if stream not in inserted})
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
            *_columns([(*stream, reason) for stream, reason in plan.waits.items()]),
        )
    for held in plan.hold:
        await _hold(tx, held)
    for event, reason, detail, blocks in plan.park:
        await park(tx, event.record, event, reason, detail, blocks=blocks)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def _hold(tx: Tx, held: Hold) -> None:
    event, record = held.event, held.event.record
    await tx.execute(
        f"""
        insert into held (topic, dossier_id, sequence, reason, partition, record_offset, {RECORD_COLUMNS})
        values ($1::text::topic, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict do nothing
        """,
        event.topic,
        event.dossier_id,
        event.sequence,
        held.reason,
        record.partition,
        record.offset,
        *_lossless(record),
    )


async def park(tx: Tx, record: Record, event: Received | None, reason: str, detail: str, *, blocks: bool) -> bool:
    """Put a record aside for a person; returns False when it is parked already: the same record parks once."""
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
    # PostgreSQL's text cannot hold NUL, and the text may quote any record.
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _lossless(record: Record) -> tuple[Any, ...]:
    names = [_storable(name) for name, _ in record.headers]
    values = [value if value is not None else b"" for _, value in record.headers]
    return record.key, names, values, record.value, record.sent_at


async def discard(tx: Tx, stream: StreamKey, sequence: int, ce_id: UUID) -> None:
    """Advance a stream over a parked event, because a person decided that the event has no effect.

    The events held behind it become `gap`, so that the watch for gaps applies them if this process dies now.
    """
    await tx.execute(
        "update held set reason = 'gap' where topic = $1::text::topic and dossier_id = $2 and reason = 'behind'",
        *stream,
    )
    await tx.execute(
        "update heads set last = $3, fingerprints = fingerprints || $4::int"
        " where topic = $1::text::topic and dossier_id = $2 and last = $3 - 1",
        *stream,
        sequence,
        fingerprint(ce_id),
    )
