"""`GET /v1/stages`: which stage is the bottleneck, since when and why."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from services.workflow.app import WorkflowApp
from services.workflow.stages import queries
from services.workflow.stages.figures import list_figures
from services.workflow.stages.models import StagesView
from services.workflow.stages.verdict import verdict
from shared.http.access import Caller, allow


def router(app: WorkflowApp) -> APIRouter:
    routes = APIRouter(tags=["operations"])

    @routes.get("/v1/stages", response_model=StagesView)
    async def get_stages(
        _: Annotated[Caller, Depends(allow())],
        agency: Annotated[
            str | None, Query(max_length=60, description="Only its dossiers, without the stages `relay` and `notify`")
        ] = None,
    ) -> dict[str, Any]:
        """Which stage is the bottleneck, since when and why; and which procedures only record submissions, and why."""
        view = verdict(await list_figures(app, agency), speed=app.service.office.speed)
        rows = await app.service.pool().fetch(queries.RECORDED_ONLY, agency)
        reasons = {procedure.code: procedure.record_only_reason for procedure in app.catalogue.list()}
        view["recorded_only"] = [{**dict(row), "reason": reasons.get(row["procedure_code"])} for row in rows]
        return view

    return routes
