"""idlookup's HTTP API: the state of each request, and a specialist's answer to a suspected duplicate."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Query, Request

from services.idlookup import commands, handlers, numbers, queries
from services.idlookup.app import IdlookupApp
from services.idlookup.models import RequestPage, RequestState, Resolution, Resolved
from services.idlookup.queries import Position
from shared import service
from shared.http.access import Caller, allow
from shared.http.body import read_model
from shared.http.cursor import Cursor, Timestamp, page
from shared.http.headers import no_store
from shared.http.openapi import describe
from shared.privacy.sealed import Sealer, Tampered
from shared.service import Part

Reader = Annotated[Caller, Depends(allow("specialist", "signatory", "records_clerk", "centre_director", "ops"))]
Specialist = Annotated[Caller, Depends(allow("specialist"))]
State = Annotated[RequestState | None, Query(description="Only requests in this state.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="The most rows to answer.")]
After = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
CURSOR = Cursor(tuple[Timestamp, UUID])
"""The fields of `Position`."""


def create_app(app: IdlookupApp) -> FastAPI:
    """The whole service: routes, the workers, and what it publishes and consumes."""
    own = Part(routers=[_requests(app)], background=[app.call_registry], refreshers=[app.refresh_gauges])
    return service.create_app(app.service, own, app.delivery.part(handlers.inbox(app)))


def _requests(app: IdlookupApp) -> APIRouter:
    routes = APIRouter(prefix="/v1/requests", tags=["requests"], dependencies=[Depends(no_store)])

    @routes.get("", response_model=RequestPage)
    async def list_requests(_: Reader, state: State = None, limit: Limit = 100, after: After = None) -> dict[str, Any]:
        """Requests to the population registry, oldest first."""
        last = Position(*CURSOR.decode(after)) if after is not None else None
        rows = await queries.list_requests(app.service.pool(), state, last, limit)
        following = CURSOR.encode((rows[-1]["wanted_at"], rows[-1]["request_key"])) if rows else None
        return page([_request_row(app.sealer, row) for row in rows], limit, following)

    @routes.post(
        "/{request_key}/resolve",
        response_model=Resolved,
        openapi_extra=describe(body=Resolution, problems=commands.RESOLVE_PROBLEMS),
    )
    async def resolve(request: Request, caller: Specialist, request_key: UUID) -> dict[str, Any]:
        """Decide about a suspected duplicate: the same person, whose number is given, or a new person."""
        resolution = await read_model(request, Resolution)
        await commands.resolve(app, request_key, resolution, caller.officer)
        return {"request_key": request_key, "decision": resolution.decision}

    return routes


def _request_row(sealer: Sealer, row: Any) -> dict[str, Any]:
    fields = {name: value for name, value in row.items() if name != "sealed_number"}
    if row["sealed_number"] is not None:
        try:
            fields["number"] = numbers.mask(str(sealer.open(row["dossier_id"], "number", row["sealed_number"])))
        except Tampered:
            fields["number"] = None
    return fields
