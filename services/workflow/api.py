"""Workflow's HTTP application: its routes and background tasks, and the delivery attached to it."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI

from services.workflow import (
    dossiers_api,
    feed,
    handlers,
    opening,
    publishing,
    rules_api,
    state_records,
    tasks_api,
    timers,
)
from services.workflow.app import WorkflowApp
from services.workflow.stages import api as stages_api
from services.workflow.stages import gauges
from shared import service
from shared.contract.events import LIFECYCLE
from shared.delivery import States
from shared.service import Part


def create_app(app: WorkflowApp) -> FastAPI:
    """The whole service as an ASGI application."""
    own = Part(
        routers=[module.router(app) for module in (tasks_api, dossiers_api, rules_api, stages_api, feed)],
        on_ready=[partial(publishing.seed, app)],
        background=[partial(task, app) for task in (publishing.keep_fresh, timers.fire, opening.receive_queues)],
        refreshers=[partial(gauges.refresh, app)],
    )
    states = States(LIFECYCLE, state_records.builder(app.service.office))
    return service.create_app(app.service, own, app.delivery.part(handlers.inbox(app), states))
