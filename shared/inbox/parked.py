"""Records put aside: list them, look at one, apply it again in its place, or let its dossier go on without it."""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request

from shared.contract.envelope import Malformed, parse
from shared.http.access import Caller, allow
from shared.http.body import read_object
from shared.http.openapi import fields, takes
from shared.http.problems import Problem, bad_cursor, not_found
from shared.inbox import positions, store
from shared.inbox.consumer import Unappliable
from shared.inbox.sequence import StreamKey

log = structlog.get_logger(__name__)

COLUMNS = "id, topic, partition, record_offset, dossier_id, sequence, ce_id, blocks, reason, detail, parked_at, state"


# Not inside the function: FastAPI looks annotations up in the module and takes what it does not find for a parameter.
Ops = Annotated[Caller, Depends(allow("ops"))]
Number = Annotated[int, Path(ge=1, lt=2**63)]


DISCARDED = takes(fields({"reason": {"type": "string", "minLength": 3, "maxLength": 500}}))


def router() -> APIRouter:
    """`/v1/parked`, the same on every service. Values are never shown: they may be personal data."""
    routes = APIRouter(prefix="/v1/parked", tags=["operations"])

    @routes.get("")
    async def list_parked(
        request: Request,
        _: Ops,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str, Query(max_length=200)] = "0",
    ) -> dict[str, Any]:
        place = int(after) if after.isascii() and after.isdecimal() else -1
        if not 0 <= place < 2**63:
            raise bad_cursor()
        rows = await request.app.state.service.pool().fetch(
            f"select {COLUMNS} from parked where state = 'parked' and id > $1 order by id limit $2", place, limit
        )
        items = [_shown(row) for row in rows]
        return {"items": items, "next": str(rows[-1]["id"]) if len(rows) == limit else None}

    @routes.get("/{id}")
    async def get_parked(request: Request, _: Ops, id: Number) -> dict[str, Any]:
        row = await request.app.state.service.pool().fetchrow(
            f"select {COLUMNS}, settled_at, settled_why, header_names, length(value) as value_bytes,"
            " (select count(*) from held h where h.dossier_id = p.dossier_id and h.topic::text = p.topic) as held"
            " from parked p where id = $1",
            id,
        )
        if row is None:
            raise not_found()
        return _shown(row)

    @routes.post("/{id}/replay")
    async def replay(request: Request, caller: Ops, id: Number) -> dict[str, Any]:
        """Apply it in its place, and then what was held behind it. 409 when it still cannot be applied."""
        service = request.app.state.service
        try:
            async with service.pool().acquire() as tx, tx.transaction():
                row = await _settle(tx, id, "replayed", caller.officer)
                event = parse(store.record_from(row))
                done = await service.consumer.resume(tx, event)
        except (Unappliable, Malformed) as still:
            raise Problem(
                409,
                "still-cannot-be-applied",
                vi="Bản ghi vẫn chưa thể áp dụng; nó vẫn được giữ lại.",
                en="The record still cannot be applied; it stays parked.",
                reason=still.reason,
                reason_detail=still.detail,
            ) from still
        done()
        if event.dossier_id is not None:
            await service.consumer.drain(StreamKey(event.topic, event.dossier_id))
        return {"id": id, "state": "replayed"}

    @routes.post("/{id}/discard", openapi_extra=DISCARDED)
    async def discard(request: Request, caller: Ops, id: Number) -> dict[str, Any]:
        """Its dossier goes on without it. Body `{reason}`."""
        reason = (await read_object(request)).get("reason")
        if not isinstance(reason, str) or not 3 <= len(reason.strip()) <= 500:
            raise Problem(
                422,
                "reason-needed",
                vi="Cần nêu lý do (3 đến 500 ký tự).",
                en="A reason is needed (3 to 500 characters).",
            )
        service = request.app.state.service
        async with service.pool().acquire() as tx, tx.transaction():
            row = await _settle(tx, id, "discarded", f"{caller.officer}: {reason.strip()}")
            pair = StreamKey(row["topic"], row["dossier_id"])
            if row["blocks"]:
                await store.discard(tx, pair, row["sequence"], row["ce_id"])
        if row["blocks"]:
            await service.consumer.drain(pair)
        log.warning("parked record discarded", id=id, topic=row["topic"], dossier_id=str(row["dossier_id"]))
        return {"id": id, "state": "discarded"}

    return routes


async def _settle(tx: Any, id: int, state: str, why: str) -> Any:
    # The head is locked before the parked row everywhere else: here too, or the two could wait for each other.
    spot = await tx.fetchrow("select topic, dossier_id, blocks from parked where id = $1 and state = 'parked'", id)
    if spot is None:
        raise not_found(
            "Không có bản ghi nào đang được giữ với số này.", "No record is parked under this number.", "not-parked"
        )
    if spot["dossier_id"] is not None:
        await positions.lock(tx, [StreamKey(spot["topic"], spot["dossier_id"])])
    row = await tx.fetchrow(
        "update parked set state = $2, settled_at = clock_timestamp(), settled_why = $3"
        " where id = $1 and state = 'parked' returning *",
        id,
        state,
        why,
    )
    if row is None:
        raise not_found(
            "Không có bản ghi nào đang được giữ với số này.", "No record is parked under this number.", "not-parked"
        )
    return row


def _shown(row: Any) -> dict[str, Any]:
    return {name: (value.isoformat() if hasattr(value, "isoformat") else value) for name, value in row.items()}
