"""Parked records over HTTP: list them, show one, replay it in its place, or discard it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import ConfigDict, Field

from shared.contract.envelope import Malformed, StreamKey, parse
from shared.http.access import Caller, allow
from shared.http.body import read_model
from shared.http.cursor import Count, Cursor, page
from shared.http.models import HttpModel
from shared.http.openapi import describe
from shared.http.problems import Problem, not_found
from shared.http.times import VietnamTime
from shared.inbox import positions, store
from shared.inbox.consumer import Consumer, Unappliable
from shared.outbox.publish import Outbox

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

COLUMNS = "id, topic, partition, record_offset, dossier_id, sequence, ce_id, blocks, reason, detail, parked_at, state"

# Module level, because FastAPI looks annotations up in the module.
Ops = Annotated[Caller, Depends(allow("ops"))]
ParkedId = Annotated[int, Path(ge=1, lt=2**63, description="The `id` of the record in the list.")]
AFTER = Cursor(tuple[Count])


class ParkedRecord(HttpModel):
    """A record that could not be applied. Its value is never shown, because it may hold personal data."""

    id: int
    topic: str
    partition: int
    record_offset: int
    """The record's offset in its partition."""
    dossier_id: UUID | None
    """Null for a record that belongs to no dossier, or that cannot be read."""
    sequence: int | None
    """The event's sequence in its dossier and topic."""
    ce_id: UUID | None
    """The event's CloudEvents id."""
    blocks: bool
    """Whether later events of its dossier on this topic are held until it is replayed or discarded."""
    reason: str
    """A stable code, e.g. `no-envelope`, `rule`, `data`."""
    detail: str
    parked_at: VietnamTime
    """Wall time."""
    state: Literal["parked", "replayed", "discarded"]


class ParkedRecordDetail(ParkedRecord):
    """A parked record with what is known about it."""

    settled_at: VietnamTime | None
    """When it was replayed or discarded, wall time."""
    settled_why: str | None
    """Who replayed it; who discarded it and for what reason."""
    header_names: list[str]
    value_bytes: int | None
    """The size of its value."""
    held: int
    """The number of events that are held behind it."""


class ParkedPage(HttpModel):
    items: list[ParkedRecord]
    next: str | None
    """The cursor of the next page, to send as `after`; null on the last page."""


class Discarding(HttpModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    reason: str = Field(min_length=3, max_length=500)
    """Why the record may be left out; kept with the officer's name."""


class ParkedState(HttpModel):
    id: int
    state: Literal["replayed", "discarded"]


def router(pool: Callable[[], Pool], outbox: Outbox, consumer: Consumer) -> APIRouter:
    """`/v1/parked`, the same in every service that consumes."""
    routes = APIRouter(prefix="/v1/parked", tags=["operations"])

    @routes.get("", response_model=ParkedPage)
    async def list_parked(
        _: Ops,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    ) -> dict[str, Any]:
        """List the records that wait for a person, in the order in which they were parked."""
        (last,) = AFTER.decode(after) if after else (0,)
        rows = await pool().fetch(
            f"select {COLUMNS} from parked where state = 'parked' and id > $1 order by id limit $2", last, limit
        )
        return page([dict(row) for row in rows], limit, AFTER.encode((rows[-1]["id"],)) if rows else None)

    @routes.get("/{id}", response_model=ParkedRecordDetail, openapi_extra=describe(problems={404: ["not-found"]}))
    async def get_parked(_: Ops, id: ParkedId) -> dict[str, Any]:
        """Show one record, also after it was replayed or discarded."""
        row = await pool().fetchrow(
            f"select {COLUMNS}, settled_at, settled_why, header_names, length(value) as value_bytes,"
            " (select count(*) from held h where h.dossier_id = p.dossier_id and h.topic::text = p.topic) as held"
            " from parked p where id = $1",
            id,
        )
        if row is None:
            raise not_found()
        return dict(row)

    @routes.post(
        "/{id}/replay",
        response_model=ParkedState,
        openapi_extra=describe(problems={404: ["not-parked"], 409: ["still-cannot-be-applied"]}),
    )
    async def replay(caller: Ops, id: ParkedId) -> dict[str, Any]:
        """Apply the record in its place, then what is held behind it. When it still cannot be applied, the answer is
        409 with `reason` and `reason_detail`, and nothing changes.
        """
        try:
            async with outbox.transaction() as transaction:
                row = await _close(transaction.tx, id, "replayed", caller.officer)
                event = parse(store.record_from(row))
                await consumer.resume(transaction, event)
        except (Unappliable, Malformed) as still:
            raise Problem(
                409,
                "still-cannot-be-applied",
                vi="Bản ghi vẫn chưa thể áp dụng; nó vẫn được giữ lại.",
                en="The record still cannot be applied; it stays parked.",
                reason=still.reason,
                reason_detail=still.detail,
            ) from still
        if event.stream is not None:
            await consumer.drain(event.stream)
        return {"id": id, "state": "replayed"}

    @routes.post(
        "/{id}/discard",
        response_model=ParkedState,
        openapi_extra=describe(body=Discarding, problems={404: ["not-parked"], 422: ["reason-needed"]}),
    )
    async def discard(request: Request, caller: Ops, id: ParkedId) -> dict[str, Any]:
        """Leave the record out for ever: its dossier goes on with the events held behind it."""
        try:
            discarding = await read_model(request, Discarding)
        except Problem as problem:
            if {row["field"] for row in problem.errors or ()} != {"reason"}:
                raise
            raise _reason_needed() from None
        async with outbox.transaction() as transaction:
            row = await _close(transaction.tx, id, "discarded", f"{caller.officer}: {discarding.reason}")
            stream = StreamKey(row["topic"], row["dossier_id"])
            if row["blocks"]:
                await store.discard(transaction.tx, stream, row["sequence"], row["ce_id"])
        if row["blocks"]:
            await consumer.drain(stream)
        log.warning("parked record discarded", id=id, topic=row["topic"], dossier_id=str(row["dossier_id"]))
        return {"id": id, "state": "discarded"}

    return routes


async def _close(tx: Any, id: int, state: str, why: str) -> Any:
    """Give the parked record its final state; returns its row. Raises Problem 404 when it is not parked."""
    # Every transaction locks the stream's position before the parked row: another order could deadlock.
    row = await tx.fetchrow("select topic, dossier_id, blocks from parked where id = $1 and state = 'parked'", id)
    if row is None:
        raise _not_parked()
    if row["dossier_id"] is not None:
        await positions.lock(tx, [StreamKey(row["topic"], row["dossier_id"])])
    row = await tx.fetchrow(
        "update parked set state = $2, settled_at = clock_timestamp(), settled_why = $3"
        " where id = $1 and state = 'parked' returning *",
        id,
        state,
        why,
    )
    if row is None:
        raise _not_parked()
    return row


def _not_parked() -> Problem:
    return not_found(
        "Không có bản ghi nào đang được giữ với số này.", "No record is parked under this number.", "not-parked"
    )


def _reason_needed() -> Problem:
    return Problem(
        422, "reason-needed", vi="Cần nêu lý do (3 đến 500 ký tự).", en="A reason is needed (3 to 500 characters)."
    )
