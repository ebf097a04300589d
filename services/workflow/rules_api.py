"""The rules over HTTP: procedures, calendar, blanks, and how a due time comes about."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from services.workflow import publishing, stock
from services.workflow.app import WorkflowApp
from services.workflow.clock.calendar import CalendarRules
from services.workflow.clock.deadlines import explain
from services.workflow.models import Box, BoxPage, DueView, ProcedurePage
from services.workflow.procedures import GROUPS, Procedure
from shared.clock import VIETNAM
from shared.http.access import Caller, allow
from shared.http.body import read_model
from shared.http.cursor import Count, Cursor, Text, page
from shared.http.openapi import Problems, describe
from shared.http.problems import Problem, not_found
from shared.refusals import Complaints
from shared.submission.rules import ProcedureRules, accept

UNKNOWN: Problems = {404: ["unknown-procedure"]}
Ruler = Annotated[Caller, Depends(allow("centre_director", "ops"))]
Anyone = Annotated[Caller, Depends(allow())]
After = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Items per page")]
CODES, BOXES = Cursor(tuple[Text]), Cursor(tuple[Text, Count])
"""Where a page of procedures (code) or of boxes (kind, first serial) ended."""
MAX_BOX = 1_000_000
"""How far the last serial number of a box may be from the first."""
Code = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9.\-]{2,40}$")]


def router(app: WorkflowApp) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["rules"])
    catalogue = app.catalogue

    def check_ready() -> None:
        """Raises NotReady (503) until the rules are loaded."""
        app.service.pool()
        catalogue.check_loaded()

    @routes.get("/procedures", response_model=ProcedurePage)
    async def list_procedures(_: Anyone, after: After = None, limit: Limit = 100) -> dict[str, Any]:
        """Every procedure by code, in its current version: the one in force, or before any has begun the first."""
        check_ready()
        (last,) = CODES.decode(after) if after else ("",)
        rows = [procedure for procedure in catalogue.list() if procedure.code > last]
        following = CODES.encode((rows[limit - 1].code,)) if len(rows) > limit else None
        return {"items": rows[:limit], "next": following}

    @routes.get("/procedures/{code}", response_model=Procedure, openapi_extra=describe(problems=UNKNOWN))
    async def get_procedure(_: Anyone, code: Code) -> Procedure:
        """The current version, with its intake mode and an example that intake accepts."""
        check_ready()
        return _current_or_404(app, code)

    @routes.put(
        "/procedures/{code}",
        response_model=Procedure,
        openapi_extra=describe(body=Procedure, problems={422: ["code-differs"]}),
    )
    async def replace_procedure(request: Request, _: Ruler, code: Code) -> Procedure:
        """Change a procedure, or add one. Takes what GET answers.

        Changed rules become the next version, in force from `valid_from` on; the given `version` is ignored.
        `intake_mode` and `record_only_reason` change without a new version.
        """
        check_ready()
        procedure = await read_model(request, Procedure)
        if procedure.code != code:
            raise Problem(
                422, "code-differs", vi="Mã thủ tục không khớp địa chỉ.", en="The code differs from the address."
            )
        _check_group(procedure.group)
        _check_example(procedure, app.service.office.now())
        return await publishing.put_procedure(app, procedure)

    @routes.get("/calendar", response_model=CalendarRules)
    async def get_calendar(_: Anyone) -> CalendarRules:
        """Office hours, and the days that were decided to be working days or days off, beside the public holidays."""
        check_ready()
        return catalogue.calendar().rules

    @routes.put("/calendar", response_model=CalendarRules, openapi_extra=describe(body=CalendarRules))
    async def replace_calendar(request: Request, _: Ruler) -> CalendarRules:
        """Replace the whole calendar. Each decided day names the document that decided it."""
        check_ready()
        await publishing.put_calendar(app, await read_model(request, CalendarRules))
        return catalogue.calendar().rules

    @routes.get("/due", response_model=DueView, openapi_extra=describe(problems={**UNKNOWN, 422: ["bad-moment"]}))
    async def get_due(
        procedure: Annotated[str, Query(max_length=60, description="The procedure's code")],
        received: Annotated[datetime, Query(description="With an offset, e.g. `2026-01-08T10:00:00+07:00`")],
        _: Anyone,
    ) -> dict[str, Any]:
        """When a dossier that is received at this time is due, with each day and why it counts or not."""
        check_ready()
        if received.tzinfo is None or not 2000 <= received.year <= 2090:
            raise Problem(
                422,
                "bad-moment",
                vi="Thời điểm phải có múi giờ, từ năm 2000 đến 2090.",
                en="The time needs a zone and a year from 2000 to 2090.",
            )
        explanation = explain(catalogue.calendar(), received, _current_or_404(app, procedure).time)
        days = [
            {"date": day.date, "counted": bool(day.number), "number": day.number, "why": day.vi, "why_en": day.en}
            for day in explanation.days
        ]
        return {
            "procedure_code": procedure,
            "received_at": explanation.received_office_at,
            "due_at": explanation.due_office_at,
            "days": days,
        }

    @routes.get("/blanks", response_model=BoxPage)
    async def list_blanks(_: Anyone, after: After = None, limit: Limit = 100) -> dict[str, Any]:
        """Every box of blanks, by kind and first serial number."""
        rows = await stock.list_boxes(app.service.pool(), BOXES.decode(after) if after else stock.FIRST_PAGE, limit)
        following = BOXES.encode((rows[-1]["kind"], rows[-1]["serial_from"])) if rows else None
        return page(rows, limit, following)

    @routes.put(
        "/blanks",
        response_model=BoxPage,
        openapi_extra=describe(body=Box, problems={409: ["blanks-overlap"], 422: ["bad-range"]}),
    )
    async def put_blanks(
        request: Request, _: Annotated[Caller, Depends(allow("records_clerk", "centre_director", "ops"))]
    ) -> dict[str, Any]:
        """Enter a box (a range of serial numbers), or correct its number of spoiled blanks. Answers every box."""
        box = await read_model(request, Box)
        if box.serial_to < box.serial_from or box.serial_to - box.serial_from > MAX_BOX:
            raise Problem(
                422, "bad-range", vi="Dải số sê-ri không hợp lệ.", en="The range of serial numbers is not valid."
            )
        if not await stock.put_box(app.service.pool(), stock.Box(**dict(box))):
            raise Problem(
                409, "blanks-overlap", vi="Dải số đã có trong kho.", en="These serial numbers are in stock already."
            )
        return {"items": await stock.list_boxes(app.service.pool()), "next": None}

    return routes


def _current_or_404(app: WorkflowApp, code: str) -> Procedure:
    procedure = app.catalogue.current(code)
    if procedure is None:
        raise not_found("Không có thủ tục này.", "There is no such procedure.", "unknown-procedure")
    return procedure


def _check_group(group: str) -> None:
    if group in GROUPS:
        return
    names = ", ".join(GROUPS)
    row = {"field": "group", "code": "unknown-group", "en": f"group must be one of {names}."}
    raise Problem(
        422,
        "invalid",
        vi=f"Nhóm thủ tục phải là một trong: {names}.",
        en=f"The group must be one of: {names}.",
        errors=[{**row, "vi": f"group phải là một trong {names}."}],
    )


def _check_example(procedure: Procedure, office_now: datetime) -> None:
    """Raises Problem 422 unless intake would accept the example on a day when this version is in force."""
    rules = ProcedureRules(procedure.model_dump(mode="json"))
    first_day = datetime.combine(procedure.valid_from, time(12), VIETNAM)
    day = max(first_day, office_now) if procedure.valid_to is None else first_day
    try:
        accept(procedure.example, lambda _: rules, day)
    except Complaints as refused:
        rows = [{**asdict(row), "field": f"example/{row.field}"} for row in refused.complaints]
        raise Problem(
            422,
            "invalid",
            vi="Ví dụ (example) không phải hồ sơ mà thủ tục này nhận.",
            en="The example is no submission that this procedure would take.",
            errors=rows,
        ) from None
