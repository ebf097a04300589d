"""notify's HTTP API: the notices without persons, and the call list with persons for those who call them."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Query
from starlette.responses import Response

from services.notify import handlers, queries, rules
from services.notify.app import NotifyApp
from services.notify.models import CallDone, CallPage, NoticePage, NoticeState
from services.notify.queries import Position
from services.notify.texts import Area, NoticeText
from shared import service
from shared.http.access import Caller, allow
from shared.http.cursor import Cursor, Text, page
from shared.http.headers import no_store
from shared.http.openapi import describe
from shared.http.problems import not_found
from shared.privacy.sealed import Tampered
from shared.service import Part

Reader = Annotated[
    Caller, Depends(allow("counter", "specialist", "signatory", "records_clerk", "centre_director", "ops"))
]
CallMaker = Annotated[Caller, Depends(allow("counter", "centre_director"))]
DossierId = Annotated[UUID | None, Query(description="Only notices of this dossier.")]
State = Annotated[NoticeState | None, Query(description="Only rows in this state.")]
Agency = Annotated[str | None, Query(max_length=60, description="Only dossiers received by this agency.")]
Format = Annotated[Literal["json", "text", "html"], Query(description="`text` and `html` are for printing.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="The most rows to answer.")]
After = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
CURSOR = Cursor(tuple[UUID, Text])
"""The fields of `Position`."""
PRINTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}, "text/html": {"schema": {"type": "string"}}}}
}


def create_app(app: NotifyApp) -> FastAPI:
    """The whole service: routes, the sender, and what it publishes and consumes."""
    own = Part(
        routers=[_notices(app), _call_list(app)],
        background=[app.sender.run],
        refreshers=[app.refresh_stage],
        readiness=lambda: {"channels": [*sorted(app.available), rules.CALL_LIST]},
    )
    return service.create_app(app.service, own, app.delivery.part(handlers.inbox(app)))


def _notices(app: NotifyApp) -> APIRouter:
    routes = APIRouter(prefix="/v1/notices", tags=["notices"], dependencies=[Depends(no_store)])

    @routes.get("", response_model=NoticePage)
    async def list_notices(
        _: Reader,
        dossier_id: DossierId = None,
        state: State = None,
        limit: Limit = 100,
        after: After = None,
    ) -> dict[str, Any]:
        """Notices on each of their channels, in about the order in which they were wanted."""
        last = Position(*CURSOR.decode(after)) if after is not None else None
        rows = await queries.list_notices(app.service.pool(), dossier_id, state, last, limit)
        return page([dict(row) for row in rows], limit, _following(rows))

    return routes


def _call_list(app: NotifyApp) -> APIRouter:
    routes = APIRouter(prefix="/v1/call-list", tags=["call list"], dependencies=[Depends(no_store)])

    @routes.get("", response_model=CallPage, responses=PRINTED)
    async def list_calls(
        caller: CallMaker,
        agency: Agency = None,
        format: Format = "json",
        limit: Limit = 1000,
        after: After = None,
    ) -> Any:
        """The persons to be called, by residential area. Every reading is recorded."""
        last = Position(*CURSOR.decode(after)) if after is not None else None
        rows = await queries.list_calls(app.service.pool(), agency, last, limit)
        calls = [_call(app, row) for row in rows]
        await queries.add_readings(
            app.service.pool(), [row["dossier_id"] for row in rows], caller.role, caller.officer, f"call-list {format}"
        )
        calls.sort(key=lambda call: (call["residential_area"] == "", call["residential_area"], call["full_name"]))
        if format == "json":
            return page(calls, limit, _following(rows))
        areas = [Area(name, list(group)) for name, group in groupby(calls, lambda call: call["residential_area"])]
        text = app.texts.call_list(format, areas, agency=agency, office_at=app.service.office.now())
        media_type = "text/html" if format == "html" else "text/plain"
        # A route that returns a response of its own loses the headers that its dependencies set.
        return Response(text, media_type=f"{media_type}; charset=utf-8", headers={"Cache-Control": "no-store"})

    @routes.post("/{notice_id}/done", response_model=CallDone, openapi_extra=describe(problems={404: ["unknown-call"]}))
    async def done(caller: CallMaker, notice_id: UUID) -> dict[str, Any]:
        """Report that a call was made: its contact is deleted. Reporting it again changes nothing."""
        row = await queries.finish_call(app.service.pool(), notice_id, caller.officer)
        if row is None:
            raise not_found("Không có cuộc gọi nào như vậy.", "There is no such call.", "unknown-call")
        return {"notice_id": notice_id, "state": "listed", "done_at": row["done_at"], "done_by": row["done_by"]}

    return routes


def _call(app: NotifyApp, row: Any) -> dict[str, Any]:
    try:
        contact = rules.read_contact(app.sealer.open(row["dossier_id"], "contact", row["sealed_contact"]))
    except Tampered:
        contact = rules.NOBODY
    text = NoticeText(row["kind"], row["cause"], row["dossier_code"], row["national_status"], row["result_due_at"])
    vi, en = app.texts.sentence(text)
    return {
        "notice_id": row["notice_id"],
        "dossier_id": row["dossier_id"],
        "dossier_code": row["dossier_code"],
        "residential_area": contact.residential_area,
        "full_name": contact.full_name,
        "phone": contact.phone,
        "vi": vi,
        "en": en,
        "wanted_at": row["wanted_at"],
    }


def _following(rows: list[Any]) -> str | None:
    return CURSOR.encode((rows[-1]["notice_id"], rows[-1]["channel"])) if rows else None
