"""One dossier over HTTP: for officers, and for the citizen who holds its secret."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request

from services.workflow import commands
from services.workflow.app import WorkflowApp
from services.workflow.lifecycle import Dossier
from services.workflow.models import DossierView, Result, ResultView, TrackView
from shared.contract.events import LIFECYCLE
from shared.http.access import Caller, allow
from shared.http.body import read_model
from shared.http.openapi import describe
from shared.http.problems import Problem, not_found
from shared.privacy.tracking import is_tracking_secret


def router(app: WorkflowApp) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["dossiers"])

    @routes.get(
        "/dossiers/{dossier_id}",
        response_model=DossierView,
        openapi_extra=describe(problems={404: ["not-yet-known"]}),
    )
    async def get_dossier(_: Annotated[Caller, Depends(allow())], dossier_id: UUID) -> dict[str, Any]:
        """State, clock, result and timeline. 404 `not-yet-known` until workflow has read the submission."""
        dossier = await _find_dossier(app, dossier_id)
        if dossier is None:
            raise _not_yet_known()
        return {
            "dossier_id": dossier.dossier_id,
            "dossier_code": dossier.dossier_code,
            "procedure_code": dossier.procedure_code,
            "procedure_version": dossier.procedure_version,
            "state": dossier.state,
            "national_status": dossier.national_status,
            "due_at": dossier.due_office_at,
            "fee": dossier.fee,
            "result": dossier.result,
            "clocks": _clocks(dossier),
            "tasks": [
                {"stage": task.stage, "role": task.role, "since": task.entered_office_at} for task in dossier.tasks
            ],
            "timeline": await _timeline(app, dossier_id),
        }

    @routes.put(
        "/dossiers/{dossier_id}/result",
        response_model=ResultView,
        openapi_extra=describe(body=Result, problems=commands.RESULT_PROBLEMS),
    )
    async def put_result(
        request: Request,
        _: Annotated[Caller, Depends(allow("records_clerk", "signatory", "counter", "specialist"))],
        dossier_id: UUID,
    ) -> dict[str, Any]:
        """Record the result's number, book, signatory, capacity and kind of signature.

        What was signed cannot be changed (409 `already-signed`), except that the scan of a wet signature may be added,
        even after the hand-over: `wet_scanned` with its `sha256`.
        """
        result = await read_model(request, Result, vi="Kết quả không hợp lệ.", en="The result is not valid.")
        return await commands.put_result(app, dossier_id, result.model_dump(exclude_none=True))

    @routes.get(
        "/track/{reference}",
        response_model=TrackView,
        openapi_extra=describe(problems={404: ["unknown-dossier"]}, roles=(), secret=True),
    )
    async def track(
        reference: Annotated[str, Path(description="The dossier's code or its id")],
        secret: Annotated[str, Query(max_length=200, description="The tracking secret of the submission")] = "",
    ) -> dict[str, Any]:
        """For the citizen: code, status, due date and timeline, without a person.

        A wrong secret and an unknown dossier get the same answer.
        """
        dossier_id = await _find_dossier_id(app, reference)
        dossier = None
        # The same work for a wrong secret as for an unknown dossier: the time must not tell one from the other.
        if is_tracking_secret(app.secret_key, dossier_id or UUID(int=0), secret) and dossier_id is not None:
            dossier = await _find_dossier(app, dossier_id)
        if dossier is None:
            raise not_found(
                "Không tìm thấy hồ sơ với mã này.", "No dossier is found with this code.", "unknown-dossier"
            )
        return {
            "dossier_code": dossier.dossier_code,
            "state": dossier.state,
            "status": dossier.national_status,
            "due_at": dossier.due_office_at,
            "timeline": await _timeline(app, dossier.dossier_id),
        }

    return routes


async def _find_dossier_id(app: WorkflowApp, reference: str) -> UUID | None:
    """By a dossier code; an id is returned as it is, whether or not there is such a dossier."""
    try:
        return UUID(reference)
    except ValueError:
        query = "select dossier_id from dossiers where dossier_code = $1"
        dossier_id: UUID | None = await app.service.pool().fetchval(query, reference[:60])
        return dossier_id


async def _find_dossier(app: WorkflowApp, dossier_id: UUID) -> Dossier | None:
    body = await app.service.pool().fetchval("select body from dossiers where dossier_id = $1", dossier_id)
    return None if body is None else Dossier.from_json(body)


async def _timeline(app: WorkflowApp, dossier_id: UUID) -> list[dict[str, Any]]:
    rows = await app.service.pool().fetch(
        "select sequence, type, recorded_at, data from events where dossier_id = $1 and topic = $2::text::topic"
        " order by sequence",
        dossier_id,
        LIFECYCLE,
    )
    return [
        {
            "sequence": row["sequence"],
            "type": row["type"],
            "at": row["recorded_at"],
            "office_at": orjson.loads(row["data"])["office_at"],
        }
        for row in rows
    ]


def _clocks(dossier: Dossier) -> list[dict[str, Any]]:
    if dossier.received_office_at is None:
        return []
    return [
        {
            "kind": "statutory",
            "started_at": dossier.received_office_at,
            "due_at": dossier.due_office_at,
            "paused_since": dossier.paused_office_at,
            "running": dossier.paused_office_at is None and not dossier.ended,
        }
    ]


def _not_yet_known() -> Problem:
    return not_found(
        "Hồ sơ chưa đến khâu xử lý; xin thử lại sau ít giây.",
        "Workflow has not read this submission yet; try again in a few seconds.",
        "not-yet-known",
    )
