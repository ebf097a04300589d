"""idlookup's HTTP: which requests are where, and a person's answer to a suspected duplicate."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from services.idlookup import numbers, resolving
from shared.http.access import Caller, allow
from shared.http.body import dumps, read_object
from shared.http.openapi import takes
from shared.http.problems import Problem, bad_cursor, not_found, read_strictly
from shared.outbox.publish import stage
from shared.postgres.writes import Writes
from shared.privacy.sealed import Sealer, Tampered
from shared.service import Service

States = Literal["waiting", "calling", "pending", "found", "matched", "mismatched", "duplicate", "refused", "stopped"]
Reader = Annotated[Caller, Depends(allow("specialist", "signatory", "records_clerk", "centre_director", "ops"))]
Specialist = Annotated[Caller, Depends(allow("specialist"))]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(max_length=120)]


class Resolution(BaseModel):
    """A person's answer. `number`: the one this person has already, for `same_person`."""

    model_config = ConfigDict(extra="forbid")
    decision: Literal["same_person", "new_person"]
    number: str | None = Field(default=None, pattern=r"^[0-9]{12}$")
    note: str = Field(min_length=3, max_length=1000)


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/requests", tags=["requests"])

    @routes.get("")
    async def list_requests(
        _: Reader, state: States | None = None, limit: Limit = 100, after: After = None
    ) -> Response:
        """Requests of the registry, oldest first. Never a name; of a number the last three digits."""
        rows = await resolving.list_requests(service.pool(), state, _place(after), limit)
        following = _after(rows[-1]) if len(rows) == limit else None
        return _json({"items": [_shown(service.sealer, row) for row in rows], "next": following})

    @routes.post("/{request_key}/resolve", openapi_extra=takes(Resolution))
    async def resolve(request: Request, caller: Specialist, request_key: UUID) -> Response:
        """same_person: the number given is theirs. new_person: the same request goes out again, confirmed."""
        said = _resolution(await read_object(request))
        if said.decision == "same_person" and said.number is None:
            raise Problem(
                422, "number-needed", vi="Cần số định danh đã có.", en="The number this person has is needed."
            )
        async with service.pool().acquire() as tx, tx.transaction():
            row = await resolving.lock_duplicate(tx, request_key)
            if row is None:
                raise not_found("Không có yêu cầu này.", "There is no such request.", "unknown-request")
            if row["state"] != "duplicate":
                raise Problem(
                    409,
                    "not-a-duplicate",
                    vi="Yêu cầu này không chờ người quyết định.",
                    en="This request does not wait for a person's decision.",
                )
            writes = Writes()
            if said.number is not None and said.decision == "same_person":
                sealed = service.sealer.seal(row["dossier_id"], "number", said.number)
                odd = _odd(service.sealer, row, said.number)
                outgoing = await resolving.give_number(tx, writes, row, sealed, odd, caller.officer, said.note)
            else:
                outgoing = await resolving.send_again(tx, row, caller.officer, said.note)
            lanes = await stage(tx, outgoing, writes)
        service.wake(lanes)
        service.extras["knock"]({row["kind"]})
        return _json({"request_key": request_key, "decision": said.decision})

    return routes


def _odd(sealer: Sealer, row: Any, number: str) -> tuple[str, ...]:
    try:
        subject = sealer.open(row["dossier_id"], "subject", row["sealed"])
    except Tampered:
        return ("same-person", "not-compared")
    return ("same-person", *numbers.warnings(number, numbers.person_in(subject)))


def _resolution(body: dict[str, Any]) -> Resolution:
    return read_strictly(Resolution, body, vi="Nội dung không hợp lệ.", en="The content is not valid.")


def _shown(sealer: Sealer, row: Any) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if name != "sealed_number"}
    if row["sealed_number"] is not None:
        try:
            shown["number"] = numbers.mask(str(sealer.open(row["dossier_id"], "number", row["sealed_number"])))
        except Tampered:
            shown["number"] = None
    return shown


def _after(row: Any) -> str:
    """Fit to stand in an address as it is."""
    place = f"{row['wanted_at'].isoformat()}~{row['request_key']}"
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _place(after: str | None) -> tuple[datetime, UUID] | None:
    if after is None:
        return None
    try:
        wanted_at, _, request_key = base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)).decode().partition("~")
        moment = datetime.fromisoformat(wanted_at)
        if moment.tzinfo is None:
            raise ValueError
        return moment, UUID(request_key)
    except ValueError:
        raise bad_cursor() from None


def _json(value: Any) -> Response:
    return Response(dumps(value), media_type="application/json", headers={"Cache-Control": "no-store"})
