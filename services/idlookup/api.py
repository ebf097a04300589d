"""idlookup's HTTP: which requests are where, and a person's answer to a suspected duplicate."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from shared.access import Caller, allow
from shared.body import dumps, read_object
from shared.events import IdNumberFound
from shared.outbox import stage
from shared.problems import Problem, not_found
from shared.service import Background, Service

from . import caller, numbers, store
from .registry import RegistryMetrics

BACKGROUND: tuple[Background, ...] = (caller.call_for_ever,)
REFRESHERS: tuple[Background, ...] = (caller.show,)


class Resolution(BaseModel):
    """A person's answer. `number`: the one this person has already, for `same_person`."""

    model_config = ConfigDict(extra="forbid")
    decision: Literal["same_person", "new_person"]
    number: str | None = Field(default=None, pattern=r"^[0-9]{12}$")
    note: str = Field(min_length=3, max_length=1000)


def routers(service: Service) -> list[APIRouter]:
    service.extras.update(came=asyncio.Event(), registry_metrics=RegistryMetrics(service.registry))
    return [_requests(service)]


def _requests(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/requests", tags=["requests"])

    @routes.get("")
    async def list_requests(
        _: Annotated[Caller, Depends(allow("specialist", "signatory", "centre_director", "ops"))],
        state: Annotated[str | None, Query(max_length=20)] = None,
        after: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """Requests by age; numbers are masked."""
        rows = await store.list_requests(service.pool(), state, _decode(after) if after else None, limit)
        following = _encode(rows[-1]) if len(rows) == limit else None
        return Response(
            dumps({"items": [_shown(service, row) for row in rows], "next": following}), media_type="application/json"
        )

    @routes.post("/{id}/resolve")
    async def resolve(request: Request, who: Annotated[Caller, Depends(allow("specialist"))], id: UUID) -> Response:
        """same_person: this is their number. new_person: the same request is sent again, confirmed."""
        said = _resolution(await read_object(request))
        lanes: set[int] = set()
        async with service.pool().acquire() as tx, tx.transaction():
            dossier_id = await tx.fetchval("select dossier_id from requests where request_key = $1", id)
            if dossier_id is None:
                raise not_found("Không có yêu cầu này.", "There is no such request.", "unknown-request")
            sequences = await store.lock_sequences(tx, [dossier_id])
            row = await store.lock_request(tx, id)
            if row is None or row["state"] != "duplicate":
                raise Problem(
                    409,
                    "not-a-duplicate",
                    vi="Yêu cầu này không chờ người quyết định.",
                    en="This request does not wait for a person's decision.",
                )
            if said.decision == "new_person":
                await tx.execute(
                    "update requests set state = 'waiting', asked = false, confirmed = true, lost = 0,"
                    " next_try_at = clock_timestamp(), resolved_by = $2, resolved_note = $3 where request_key = $1",
                    id,
                    who.officer,
                    said.note,
                )
            else:
                lanes = await _found(service, tx, row, sequences, said, who)
        service.wake(lanes)
        service.extras["came"].set()
        return Response(dumps({"request_key": id, "decision": said.decision}), media_type="application/json")

    return routes


async def _found(
    service: Service, tx: Any, row: Any, sequences: dict[UUID, int], said: Resolution, who: Caller
) -> set[int]:
    if said.number is None:
        raise Problem(422, "number-needed", vi="Cần số định danh đã có.", en="The number this person has is needed.")
    dossier_id = row["dossier_id"]
    sealed = service.sealer.seal(dossier_id, "number", said.number)
    await tx.execute(
        "update requests set state = 'found', sealed_number = $2, settled_at = clock_timestamp(), resolved_by = $3,"
        " resolved_note = $4 where request_key = $1",
        row["request_key"],
        sealed,
        who.officer,
        said.note,
    )
    fact = IdNumberFound(request_key=row["request_key"], sealed_number=sealed, warnings=("same-person",))
    told = store.tell(sequences, dossier_id, row["trace_id"], [fact])
    await store.save_sequences(tx, sequences, {dossier_id})
    return await stage(tx, told)


def _resolution(body: dict[str, Any]) -> Resolution:
    try:
        return Resolution.model_validate(body)
    except ValidationError as wrong:
        rows = [
            {"field": "/".join(map(str, row["loc"])), "code": row["type"]}
            for row in wrong.errors(include_input=False, include_url=False)[:20]
        ]
        raise Problem(
            422, "invalid", vi="Nội dung không hợp lệ.", en="The content is not valid.", errors=rows
        ) from wrong


def _shown(service: Service, row: Any) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if name != "sealed_number"}
    if row["sealed_number"] is not None:
        number = service.sealer.open(row["dossier_id"], "number", row["sealed_number"])
        shown["number"] = numbers.mask(str(number))
    return shown


def _encode(row: Any) -> str:
    return base64.urlsafe_b64encode(
        json.dumps([row["wanted_at"].isoformat(), str(row["request_key"])]).encode()
    ).decode()


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        wanted_at, key = json.loads(base64.urlsafe_b64decode(cursor))
        return datetime.fromisoformat(wanted_at), UUID(key)
    except (ValueError, TypeError):
        vi, en = "Con trỏ `after` không hợp lệ.", "The cursor is not one of ours."
        raise Problem(400, "bad-cursor", vi=vi, en=en) from None
