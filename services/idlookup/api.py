"""idlookup's HTTP: the state of each request, and a person's answer to a suspected duplicate."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Query, Request

from services.idlookup import handlers, numbers, resolving
from services.idlookup.app import IdlookupApp
from services.idlookup.models import RequestPage, RequestState, Resolution, Resolved
from shared import service
from shared.http.access import Caller, allow
from shared.http.body import read_model
from shared.http.cursor import Cursor, Timestamp, page
from shared.http.headers import no_store
from shared.http.openapi import describe
from shared.http.problems import Problem, not_found
from shared.privacy.sealed import Sealer, Tampered
from shared.service import Part

Reader = Annotated[Caller, Depends(allow("specialist", "signatory", "records_clerk", "centre_director", "ops"))]
Specialist = Annotated[Caller, Depends(allow("specialist"))]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(max_length=200)]
AFTER = Cursor(tuple[Timestamp, UUID])
"""Where a page ended: (wanted at, request key)."""


def create_app(app: IdlookupApp) -> FastAPI:
    """The whole service: routes, the workers, what it publishes and consumes."""
    own = Part(routers=[_requests(app)], background=[app.call_registry], refreshers=[app.refresh_gauges])
    return service.create_app(app.service, own, app.delivery.part(handlers.inbox(app)))


def _requests(app: IdlookupApp) -> APIRouter:
    routes = APIRouter(prefix="/v1/requests", tags=["requests"], dependencies=[Depends(no_store)])

    @routes.get("", response_model=RequestPage)
    async def list_requests(
        _: Reader, state: RequestState | None = None, limit: Limit = 100, after: After = None
    ) -> dict[str, Any]:
        """Requests to the registry, oldest first."""
        last = AFTER.decode(after) if after is not None else None
        rows = await resolving.list_requests(app.service.pool(), state, last, limit)
        following = AFTER.encode((rows[-1]["wanted_at"], rows[-1]["request_key"])) if rows else None
        return page([_shown(app.sealer, row) for row in rows], limit, following)

    @routes.post(
        "/{request_key}/resolve",
        response_model=Resolved,
        openapi_extra=describe(
            body=Resolution, problems={404: ["unknown-request"], 409: ["not-a-duplicate"], 422: ["number-needed"]}
        ),
    )
    async def resolve(request: Request, caller: Specialist, request_key: UUID) -> dict[str, Any]:
        """`same_person`: the number given is theirs. `new_person`: the same request is sent again, confirmed."""
        resolution = await read_model(request, Resolution)
        if resolution.decision == "same_person" and resolution.number is None:
            raise Problem(
                422, "number-needed", vi="Cần số định danh đã có.", en="The number this person has is needed."
            )
        async with app.delivery.outbox.transaction() as transaction:
            row = await resolving.lock_duplicate(transaction.tx, request_key)
            if row is None:
                raise not_found("Không có yêu cầu này.", "There is no such request.", "unknown-request")
            if row["state"] != "duplicate":
                raise Problem(
                    409,
                    "not-a-duplicate",
                    vi="Yêu cầu này không chờ người quyết định.",
                    en="This request does not wait for a person's decision.",
                )
            if resolution.number is not None and resolution.decision == "same_person":
                sealed = app.sealer.seal(row["dossier_id"], "number", resolution.number)
                given = resolving.GivenNumber(sealed, _warnings(app.sealer, row, resolution.number))
                transaction.append(
                    await resolving.give_number(transaction, row, given, caller.officer, resolution.note)
                )
            else:
                await resolving.send_again(transaction.tx, row, caller.officer, resolution.note)
        app.wake({row["kind"]})
        return {"request_key": request_key, "decision": resolution.decision}

    return routes


def _warnings(sealer: Sealer, row: Any, number: str) -> tuple[str, ...]:
    try:
        subject = sealer.open(row["dossier_id"], "subject", row["sealed"])
    except Tampered:
        return ("same-person", "not-compared")
    return ("same-person", *numbers.warnings(number, numbers.person_in(subject)))


def _shown(sealer: Sealer, row: Any) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if name != "sealed_number"}
    if row["sealed_number"] is not None:
        try:
            shown["number"] = numbers.mask(str(sealer.open(row["dossier_id"], "number", row["sealed_number"])))
        except Tampered:
            shown["number"] = None
    return shown
