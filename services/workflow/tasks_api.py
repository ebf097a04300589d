"""The officers' work list, and the commands on its tasks."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request

from services.workflow import commands
from services.workflow.app import WorkflowApp
from services.workflow.models import BulkCompletion, BulkState, TaskCompletion, TaskPage, TaskStart, TaskState
from services.workflow.tables import TASK_STAGES
from shared.http.access import Caller, allow
from shared.http.body import read_model
from shared.http.cursor import Cursor, Timestamp, page
from shared.http.openapi import describe
from shared.http.problems import Problem
from shared.refusals import Refused

OFFICERS = ("counter", "specialist", "signatory", "records_clerk", "centre_director")
Officer = Annotated[Caller, Depends(allow(*OFFICERS))]
NO_DUE_TIME = datetime.max.replace(tzinfo=UTC)
"""The driver writes it as `infinity`: tasks without a due time come last."""
FIRST_PAGE = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))
AFTER = Cursor(tuple[Timestamp | None, UUID])
"""Where a page ended: (due at, task id)."""

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
"""The front of each role's list in each stage, merged. Each list is read from an index, whatever else is open."""
OF_ALL, OF_AGENCY = LIST.format(agency=""), LIST.format(agency="and agency = $6")


def router(app: WorkflowApp) -> APIRouter:
    routes = APIRouter(prefix="/v1/tasks", tags=["tasks"])

    @routes.get("", response_model=TaskPage)
    async def list_tasks(
        _: Annotated[Caller, Depends(allow())],
        role: Annotated[str | None, Query(max_length=40, description="Only tasks of this role")] = None,
        agency: Annotated[str | None, Query(max_length=60, description="Only tasks of this agency")] = None,
        stage: Annotated[str | None, Query(max_length=40, description="Only tasks in this stage")] = None,
        after: Annotated[str | None, Query(max_length=200, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="Tasks per page")] = 100,
    ) -> dict[str, Any]:
        """Open tasks, soonest due first; tasks without a due time come last. Never stale: read from the tables."""
        due, task_id = AFTER.decode(after) if after else FIRST_PAGE
        roles, stages = [role] if role else list(OFFICERS), [stage] if stage else list(TASK_STAGES)
        wanted = (roles, stages, NO_DUE_TIME if due is None else due, task_id, limit)
        if agency:
            rows = await app.service.pool().fetch(OF_AGENCY, *wanted, agency)
        else:
            rows = await app.service.pool().fetch(OF_ALL, *wanted)
        missing = await _list_missing(app, {row["waiting_for"] for row in rows if row["waiting_for"]})
        following = AFTER.encode((rows[-1]["due_at"], rows[-1]["task_id"])) if rows else None
        return page([_task_row(row, missing) for row in rows], limit, following)

    @routes.post(
        "/{task_id}/start",
        response_model=TaskState,
        openapi_extra=describe(body=TaskStart, problems=commands.START_PROBLEMS),
    )
    async def start_task(request: Request, caller: Officer, task_id: UUID) -> dict[str, Any]:
        """Take a task up. It then has a holder and a new version; nobody else can take it up."""
        start = await read_model(request, TaskStart)
        return await commands.start(app, caller, task_id, version=start.version)

    @routes.post(
        "/{task_id}/complete",
        response_model=TaskState,
        openapi_extra=describe(body=TaskCompletion, problems=commands.COMPLETE_PROBLEMS),
    )
    async def complete_task(request: Request, caller: Officer, task_id: UUID) -> dict[str, Any]:
        """End a task with one of its outcomes. When it is refused, nothing has changed."""
        completion = await read_model(request, TaskCompletion)
        return await commands.complete(app, caller, task_id, completion)

    @routes.post(
        "/complete",
        response_model=BulkState,
        response_model_exclude_none=True,
        openapi_extra=describe(body=BulkCompletion),
    )
    async def complete_tasks(request: Request, caller: Officer) -> dict[str, Any]:
        """End many tasks, each in a transaction of its own. One that is refused does not affect the others.

        The `code` of an item is one of those that `POST /v1/tasks/{task_id}/complete` answers.
        """
        bulk = await read_model(request, BulkCompletion)
        states: list[dict[str, Any]] = []
        for item in bulk.items:
            try:
                await commands.complete(app, caller, item.task_id, item)
                states.append({"task_id": item.task_id, "status": 200})
            except (Problem, Refused) as refusal:
                problem = refusal if isinstance(refusal, Problem) else Problem.of(refusal)
                states.append({"task_id": item.task_id, "status": problem.status, "code": problem.code})
        return {"items": states}

    return routes


def _task_row(row: Any, missing: frozenset[str]) -> dict[str, Any]:
    """The fields of `models.TaskRow`. `missing`: the needs that the stock cannot meet."""
    return {
        **dict(row),
        "outcomes": _parse_outcomes(row["outcomes"]),
        "waiting_for": row["waiting_for"] if row["waiting_for"] in missing else None,
    }


@lru_cache(maxsize=64)
def _parse_outcomes(stored: bytes) -> list[dict[str, Any]]:
    """Cached, because there are only as many different texts as there are kinds of tasks."""
    outcomes: list[dict[str, Any]] = orjson.loads(stored)
    return outcomes


async def _list_missing(app: WorkflowApp, needs: set[str]) -> frozenset[str]:
    """Those of the `needs` of tasks (`blanks:<kind>`) that the stock cannot meet."""
    if not needs:
        return frozenset()
    rows = await app.service.pool().fetch(
        "select needs from unnest($1::text[]) as n (needs) where not exists (select 1 from blanks b"
        " where 'blanks:' || b.kind = needs and b.next_serial <= b.serial_to - b.spoiled)",
        list(needs),
    )
    return frozenset(row["needs"] for row in rows)
