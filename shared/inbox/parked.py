"""Parked records over HTTP: list them, show one, apply it again in its place, or go on without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from shared.contract.envelope import Malformed, parse
from shared.http.access import Caller, allow
from shared.http.body import read_model
from shared.http.cursor import Count, Cursor, page
from shared.http.openapi import describe
from shared.http.problems import Problem, not_found
from shared.http.times import OfficeTime
from shared.inbox import positions, store
from shared.inbox.consumer import Consumer, Unappliable
from shared.inbox.sequence import StreamKey
from shared.outbox.publish import Outbox

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

COLUMNS = "id, topic, partition, record_offset, dossier_id, sequence, ce_id, blocks, reason, detail, parked_at, state"

# Not inside the function: FastAPI looks annotations up in the module.
Ops = Annotated[Caller, Depends(allow("ops"))]
Number = Annotated[int, Path(ge=1, lt=2**63)]
AFTER = Cursor(tuple[Count])


class ParkedRecord(BaseModel):
    """A record that could not be applied. Its value is never shown: it may be personal data."""

    id: int
    topic: str
    partition: int
    record_offset: int
    dossier_id: UUID | None
    sequence: int | None
    ce_id: UUID | None
    blocks: bool
    """Later events of its dossier on this topic are held behind it."""
    reason: str
    detail: str
    parked_at: OfficeTime
    state: Literal["parked", "replayed", "discarded"]


class ParkedRecordDetail(ParkedRecord):
    """Beside it: how it ended, its headers' names, its size, and how many events are held behind it."""

    settled_at: OfficeTime | None
    settled_why: str | None
    header_names: list[str]
    value_bytes: int | None
    held: int


class ParkedPage(BaseModel):
    items: list[ParkedRecord]
    next: str | None


class Discarding(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    reason: str = Field(min_length=3, max_length=500)


class ParkedState(BaseModel):
    id: int
    state: Literal["replayed", "discarded"]


def router(pool: Callable[[], Pool], outbox: Outbox, consumer: Consumer) -> APIRouter:
    """`/v1/parked`, the same on every service that consumes."""
    routes = APIRouter(prefix="/v1/parked", tags=["operations"])

    @routes.get("", response_model=ParkedPage)
    async def list_parked(
        _: Ops,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(max_length=200)] = None,
    ) -> dict[str, Any]:
        """Records that wait for a person, the first parked first."""
        (last,) = AFTER.decode(after) if after else (0,)
        rows = await pool().fetch(
            f"select {COLUMNS} from parked where state = 'parked' and id > $1 order by id limit $2", last, limit
        )
        return page([dict(row) for row in rows], limit, AFTER.encode((rows[-1]["id"],)) if rows else None)

    @routes.get("/{id}", response_model=ParkedRecordDetail, openapi_extra=describe(problems={404: ["not-found"]}))
    async def get_parked(_: Ops, id: Number) -> dict[str, Any]:
        """One record, whatever became of it."""
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
    async def replay(caller: Ops, id: Number) -> dict[str, Any]:
        """Apply it in its place, then what was held behind it. 409 when it still cannot be applied."""
        try:
            async with outbox.transaction() as transaction:
                row = await _settle(transaction.tx, id, "replayed", caller.officer)
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
        if event.dossier_id is not None:
            await consumer.drain(StreamKey(event.topic, event.dossier_id))
        return {"id": id, "state": "replayed"}

    @routes.post(
        "/{id}/discard",
        response_model=ParkedState,
        openapi_extra=describe(body=Discarding, problems={404: ["not-parked"], 422: ["reason-needed"]}),
    )
    async def discard(request: Request, caller: Ops, id: Number) -> dict[str, Any]:
        """Its dossier goes on without it. Body `{reason}`."""
        try:
            discarding = await read_model(request, Discarding)
        except Problem as problem:
            if {row["field"] for row in problem.errors or ()} != {"reason"}:
                raise
            raise _reason_needed() from None
        async with outbox.transaction() as transaction:
            row = await _settle(transaction.tx, id, "discarded", f"{caller.officer}: {discarding.reason}")
            stream = StreamKey(row["topic"], row["dossier_id"])
            if row["blocks"]:
                await store.discard(transaction.tx, stream, row["sequence"], row["ce_id"])
        if row["blocks"]:
            await consumer.drain(stream)
        log.warning("parked record discarded", id=id, topic=row["topic"], dossier_id=str(row["dossier_id"]))
        return {"id": id, "state": "discarded"}

    return routes


async def _settle(tx: Any, id: int, state: str, why: str) -> Any:
    # The stream's position is locked before the parked row everywhere else: here too, or the two could deadlock.
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
