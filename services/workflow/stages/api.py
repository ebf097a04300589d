"""`GET /v1/stages`: which stage is the bottleneck, since when and why."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from services.workflow.app import WorkflowApp
from services.workflow.models import StagesView
from services.workflow.stages import queries
from services.workflow.stages.figures import figures
from services.workflow.stages.verdict import verdict
from shared.http.access import Caller, allow


def router(app: WorkflowApp) -> APIRouter:
    routes = APIRouter(tags=["operations"])

    @routes.get("/v1/stages", response_model=StagesView)
    async def get_stages(
        _: Annotated[Caller, Depends(allow())], agency: Annotated[str | None, Query(max_length=60)] = None
    ) -> dict[str, Any]:
        """Which stage is the bottleneck, since when and why; and what is recorded and not received, with its reason."""
        shown = verdict(await figures(app, agency), speed=app.service.office.speed)
        recorded = await app.service.pool().fetch(queries.RECORDED_ONLY, agency)
        reasons = {procedure.code: procedure.record_only_reason for procedure in app.catalogue.list()}
        shown["recorded_only"] = [{**dict(row), "reason": reasons.get(row["procedure_code"])} for row in recorded]
        return shown

    return routes
