"""The rules over HTTP: procedures, calendar, blanks, and how a due date comes about."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import datetime, time
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from services.workflow.catalogue import ProcedureCatalogue, put_calendar, put_procedure
from services.workflow.clock.calendar import CalendarRules
from services.workflow.clock.deadlines import explain
from services.workflow.procedures import GROUPS, Procedure
from shared.clock import VIETNAM
from shared.http.access import Caller, allow
from shared.http.body import dumps, read_object
from shared.http.openapi import takes
from shared.http.problems import Problem, bad_cursor, not_found, read_strictly
from shared.refusals import Complaints, broken_rule
from shared.service import Service
from shared.submission.rules import ProcedureRules, accept

Ruler = Annotated[Caller, Depends(allow("centre_director", "ops"))]
Anyone = Annotated[Caller, Depends(allow())]
Model = TypeVar("Model", bound=BaseModel)
After = Annotated[str, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=1000)]
BOX_CURSOR = re.compile(r"([a-z_]{3,40})~([0-9]{1,19})")
Code = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9.\-]{2,40}$")]


class Box(BaseModel):
    """A box of numbered blanks as the department sent it."""

    model_config = ConfigDict(extra="forbid")
    kind: str = Field(pattern=r"^[a-z_]{3,40}$")
    serial_from: int = Field(ge=0, lt=2**62)
    serial_to: int = Field(ge=0, lt=2**62)
    spoiled: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _spoiled_are_of_the_box(self) -> Box:
        if self.serial_from <= self.serial_to and self.spoiled > self.serial_to - self.serial_from + 1:
            raise broken_rule("Số phôi hỏng nhiều hơn số phôi của dải.", "More are spoiled than the box holds.")
        return self


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["rules"])
    book: ProcedureCatalogue = service.extras["rulebook"]

    def check_ready() -> None:
        service.pool()
        book.check_loaded()

    def answer(value: Any) -> Response:
        return Response(dumps(value), media_type="application/json")

    @routes.get("/procedures")
    async def list_procedures(_: Anyone, after: After = "", limit: Limit = 100) -> Response:
        """Every procedure in force, by code."""
        check_ready()
        place = _code_after(book, after)
        rows = [procedure for procedure in book.list() if procedure.code > place]
        shown = [procedure.model_dump(mode="json") for procedure in rows[:limit]]
        return answer({"items": shown, "next": rows[limit - 1].code if len(rows) > limit else None})

    @routes.get("/procedures/{code}")
    async def get_procedure(_: Anyone, code: Code) -> Response:
        check_ready()
        return answer(_known(book, code).model_dump(mode="json"))

    @routes.put("/procedures/{code}", openapi_extra=takes(Procedure))
    async def replace_procedure(request: Request, _: Ruler, code: Code) -> Response:
        """Takes what GET gives. Changed rules become the next version; `intake_mode` is outside the version."""
        check_ready()
        procedure = _valid(Procedure, await read_object(request))
        if procedure.code != code:
            raise Problem(
                422, "code-differs", vi="Mã thủ tục không khớp địa chỉ.", en="The code differs from the address."
            )
        _check_group(procedure.group)
        _check_example(procedure, service.office.now())
        return answer((await put_procedure(service, procedure)).model_dump(mode="json"))

    @routes.get("/calendar")
    async def get_calendar(_: Anyone) -> Response:
        check_ready()
        return answer(book.calendar().rules.model_dump(mode="json"))

    @routes.put("/calendar", openapi_extra=takes(CalendarRules))
    async def replace_calendar(request: Request, _: Ruler) -> Response:
        """Office hours and the days decided otherwise, each with the document that decided it."""
        check_ready()
        await put_calendar(service, _valid(CalendarRules, await read_object(request)))
        return answer(book.calendar().rules.model_dump(mode="json"))

    @routes.get("/due")
    async def get_due(
        procedure: Annotated[str, Query(max_length=60)],
        received: datetime,
        _: Anyone,
    ) -> Response:
        """When a dossier received at this moment is due, with each day counted and why."""
        check_ready()
        if received.tzinfo is None or not 2000 <= received.year <= 2090:
            raise Problem(
                422,
                "bad-moment",
                vi="Thời điểm phải có múi giờ, từ năm 2000 đến 2090.",
                en="The moment needs a time zone and a year from 2000 to 2090.",
            )
        how = explain(book.calendar(), received, _known(book, procedure).time)
        days = [
            {"date": day.date, "counted": bool(day.number), "number": day.number, "why": day.vi, "why_en": day.en}
            for day in how.days
        ]
        return answer({"procedure_code": procedure, "received_at": how.received_at, "due_at": how.due_at, "days": days})

    @routes.get("/blanks")
    async def list_blanks(_: Anyone, after: After = "", limit: Limit = 100) -> Response:
        """Every box of blanks, by kind and first serial number."""
        rows = await _blanks(service, _box_after(after), limit)
        last = f"{rows[-1]['kind']}~{rows[-1]['serial_from']}" if len(rows) == limit else None
        return answer({"items": rows, "next": last})

    @routes.put("/blanks", openapi_extra=takes(Box))
    async def put_blanks(
        request: Request, _: Annotated[Caller, Depends(allow("records_clerk", "centre_director", "ops"))]
    ) -> Response:
        """Enter a box (a range of serial numbers), or correct how many of it are spoiled."""
        box = _valid(Box, await read_object(request))
        if box.serial_to < box.serial_from or box.serial_to - box.serial_from > 1_000_000:
            raise Problem(
                422, "bad-range", vi="Dải số sê-ri không hợp lệ.", en="The range of serial numbers is not valid."
            )
        async with service.pool().acquire() as tx, tx.transaction():
            await tx.execute("select pg_advisory_xact_lock(3, 1)")
            clash = await tx.fetchval(
                "select 1 from blanks where kind = $1 and serial_from <= $3 and serial_to >= $2"
                " and (serial_from, serial_to) <> ($2, $3)",
                box.kind,
                box.serial_from,
                box.serial_to,
            )
            if clash:
                raise Problem(
                    409, "blanks-overlap", vi="Dải số đã có trong kho.", en="These serial numbers are in stock already."
                )
            await tx.execute(
                "insert into blanks (kind, serial_from, serial_to, next_serial, spoiled) values ($1, $2, $3, $2, $4)"
                " on conflict (kind, serial_from) do update set spoiled = excluded.spoiled",
                box.kind,
                box.serial_from,
                box.serial_to,
                box.spoiled,
            )
        return answer({"items": await _blanks(service), "next": None})

    return routes


async def _blanks(service: Service, after: tuple[str, int] = ("", 0), limit: int | None = None) -> list[dict[str, Any]]:
    rows = await service.pool().fetch(
        "select kind, serial_from, serial_to, next_serial - serial_from as used, spoiled,"
        " greatest(serial_to - next_serial + 1 - spoiled, 0) as left, received_at from blanks"
        " where (kind, serial_from) > ($1, $2) order by kind, serial_from limit $3",
        *after,
        limit,
    )
    return [dict(row) for row in rows]


def _code_after(book: ProcedureCatalogue, cursor: str) -> str:
    if cursor and book.current(cursor) is None:
        raise bad_cursor()
    return cursor


def _box_after(cursor: str) -> tuple[str, int]:
    found = BOX_CURSOR.fullmatch(cursor)
    if cursor and (found is None or int(found[2]) >= 2**62):
        raise bad_cursor()
    return (found[1], int(found[2])) if found else ("", 0)


def _known(book: ProcedureCatalogue, code: str) -> Procedure:
    found = book.current(code)
    if found is None:
        raise not_found("Không có thủ tục này.", "There is no such procedure.", "unknown-procedure")
    return found


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


def _valid(kind: type[Model], body: dict[str, Any]) -> Model:
    return read_strictly(kind, body, vi="Nội dung không hợp lệ.", en="The content is not valid.")


def _check_example(procedure: Procedure, office_now: datetime) -> None:
    """By the rules that intake goes by, on a day when this version is in force."""
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
