"""The officers' work list and what they do with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.workflow import commands
from shared.contract.stages import STAGES
from shared.http.access import Caller, allow
from shared.http.body import dumps, read_object
from shared.http.openapi import fields, takes
from shared.http.problems import Problem, about, bad_cursor
from shared.service import Service

OFFICERS = ("counter", "specialist", "signatory", "records_clerk", "centre_director")
Officer = Annotated[Caller, Depends(allow(*OFFICERS))]
MAX_ITEMS = 500
TASK_STAGES = tuple(stage for stage in STAGES if stage not in ("relay", "notify"))
LAST = datetime.max.replace(tzinfo=UTC)
"""What the driver writes as `infinity`: where tasks without a due time stand."""

VERSION = {"version": {"type": "integer", "minimum": 1}}
ENDING = {"outcome": {"type": "string", "maxLength": 60}, **VERSION}
SAID = {"note": {"type": "string", "maxLength": 2_000}, "fields": {"type": "object"}}
COMPLETION = fields(ENDING, SAID)
ITEM = fields({"task_id": {"type": "string", "format": "uuid"}, **ENDING}, SAID)
COMPLETIONS = fields({"items": {"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "items": ITEM}})

LIST = """
  select t.task_id, t.dossier_id, t.dossier_code, t.procedure_code, t.stage, t.role, t.agency, t.version, t.due_at,
         t.waiting_for, t.outcomes, t.state, t.holder, t.entered_office_at
    from (select n.task_id, n.due
            from unnest($1::text[]) as r (role) cross join unnest($2::text[]) as s (stage) cross join lateral (
              select task_id, coalesce(due_at, 'infinity') as due from tasks
               where state <> 'closed' and role = r.role and stage = s.stage {agency}
                 and (coalesce(due_at, 'infinity'), task_id) > ($3, $4)
               order by coalesce(due_at, 'infinity'), task_id limit $5) n
           order by 2, 1 limit $5) first
    join tasks t using (task_id)
   where t.state <> 'closed'
   order by first.due, task_id
"""
"""The front of each role's list in each stage, merged: every one is read from an index, whatever else is open."""
OF_ALL, OF_AGENCY = LIST.format(agency=""), LIST.format(agency="and agency = $6")
FRONT = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/tasks", tags=["tasks"])

    @routes.get("")
    async def list_tasks(
        _: Annotated[Caller, Depends(allow())],
        role: Annotated[str | None, Query(max_length=40)] = None,
        agency: Annotated[str | None, Query(max_length=60)] = None,
        stage: Annotated[str | None, Query(max_length=40)] = None,
        after: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """Open tasks, soonest due first; read from the tables themselves, so never stale."""
        roles, stages = [role] if role else list(OFFICERS), [stage] if stage else list(TASK_STAGES)
        wanted = (roles, stages, *(_decode(after) if after else FRONT), limit)
        if agency:
            rows = await service.pool().fetch(OF_AGENCY, *wanted, agency)
        else:
            rows = await service.pool().fetch(OF_ALL, *wanted)
        empty = await _kinds_without_stock(service, {row["waiting_for"] for row in rows if row["waiting_for"]})
        items = [_shown(row, empty) for row in rows]
        following = _encode(rows[-1]) if len(rows) == limit else None
        return Response(dumps({"items": items, "next": following}), media_type="application/json")

    @routes.post("/{task_id}/start", openapi_extra=takes(fields(VERSION)))
    async def start_task(request: Request, caller: Officer, task_id: UUID) -> Response:
        """Take a task up. Body `{version}`."""
        body = await read_object(request)
        _refuse_others(body, VERSION)
        return _json(await commands.start(service, caller, task_id, version=_version(body)))

    @routes.post("/{task_id}/complete", openapi_extra=takes(COMPLETION))
    async def complete_task(request: Request, caller: Officer, task_id: UUID) -> Response:
        """End a task. Body `{outcome, note?, fields?, version}`."""
        return _json(await commands.complete(service, caller, task_id, **_completion(await read_object(request))))

    @routes.post("/complete", openapi_extra=takes(COMPLETIONS))
    async def complete_tasks(request: Request, caller: Officer) -> Response:
        """End many tasks, each by itself: `{items: [{task_id, outcome, version}]}`."""
        body = await read_object(request)
        _refuse_others(body, ("items",))
        items = body.get("items")
        if (
            not isinstance(items, list)
            or not 1 <= len(items) <= MAX_ITEMS
            or not all(isinstance(i, dict) for i in items)
        ):
            raise _invalid("items")
        wanted = [(_task_id(item), _completion({k: v for k, v in item.items() if k != "task_id"})) for item in items]
        done = []
        for task_id, said in wanted:
            try:
                await commands.complete(service, caller, task_id, **said)
                done.append({"task_id": task_id, "status": 200})
            except Problem as problem:
                done.append({"task_id": task_id, "status": problem.status, "code": problem.code})
        return _json({"items": done})

    return routes


def _json(value: Any) -> Response:
    return Response(dumps(value), media_type="application/json")


def _shown(row: Any, empty: frozenset[str]) -> dict[str, Any]:
    shown = dict(row)
    shown["outcomes"] = orjson.Fragment(row["outcomes"])
    if row["waiting_for"] not in empty:
        shown["waiting_for"] = None
    return shown


async def _kinds_without_stock(service: Service, needed: set[str]) -> frozenset[str]:
    """Of what tasks need (`blanks:<kind>`), that of which there is none."""
    if not needed:
        return frozenset()
    rows = await service.pool().fetch(
        "select needed from unnest($1::text[]) as n (needed) where not exists (select 1 from blanks b"
        " where 'blanks:' || b.kind = needed and b.next_serial <= b.serial_to - b.spoiled)",
        list(needed),
    )
    return frozenset(row["needed"] for row in rows)


def _encode(row: Any) -> str:
    due = row["due_at"].isoformat() if row["due_at"] else None
    return base64.urlsafe_b64encode(json.dumps([due, str(row["task_id"])]).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        due, task_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if due is None:
            return LAST, UUID(task_id)
        found = datetime.fromisoformat(due)
        if found.tzinfo is not None and 1900 < found.year < 2200:
            return found, UUID(task_id)
        raise ValueError("a moment that no task is due at")
    except (ValueError, TypeError, AttributeError):
        raise bad_cursor() from None


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    _refuse_others(body, (*ENDING, *SAID))
    outcome, note, fields = body.get("outcome"), body.get("note"), body.get("fields")
    if not isinstance(outcome, str) or len(outcome) > 60:
        raise _invalid("outcome")
    if note is not None and (not isinstance(note, str) or len(note) > 2_000):
        raise _invalid("note")
    if fields is not None and not isinstance(fields, dict):
        raise _invalid("fields")
    return {"outcome": outcome, "note": note, "fields": fields, "version": _version(body)}


def _refuse_others(body: dict[str, Any], known: Iterable[str]) -> None:
    if unknown := body.keys() - set(known):
        raise _invalid(min(unknown))


def _version(body: dict[str, Any]) -> int:
    version = body.get("version")
    if type(version) is not int or not 0 < version < 2**31:
        raise _invalid("version")
    return version


def _task_id(item: dict[str, Any]) -> UUID:
    try:
        return UUID(str(item.get("task_id")))
    except ValueError:
        raise _invalid("task_id") from None


def _invalid(field: str) -> Problem:
    return Problem(
        422,
        "invalid",
        vi=f"Trường `{field[:60]}` thiếu hoặc không hợp lệ.",
        en=f"The field `{field[:60]}` is missing or not valid.",
        errors=[about(field[:60], "invalid")],
    )
