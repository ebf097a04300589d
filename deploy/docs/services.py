"""The four services as applications that are never started: what the generated documents are read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fastapi import FastAPI

from services.idlookup import api as idlookup_api
from services.idlookup import handlers as idlookup_handlers
from services.idlookup.app import IdlookupApp
from services.idlookup.settings import IdlookupSettings
from services.intake import api as intake_api
from services.intake import handlers as intake_handlers
from services.intake.app import IntakeApp
from services.intake.settings import IntakeSettings
from services.notify import api as notify_api
from services.notify import handlers as notify_handlers
from services.notify.app import NotifyApp
from services.notify.settings import NotifySettings
from services.workflow import api as workflow_api
from services.workflow import handlers as workflow_handlers
from services.workflow.app import WorkflowApp
from services.workflow.settings import WorkflowSettings
from shared.inbox.consumer import Inbox

NOWHERE = {
    "database": "postgresql://nobody@127.0.0.1:1/none",
    "kafka": "127.0.0.1:1",
    "seal_keys": "docs:" + "A" * 43 + "=",
    "secret": "only for reading the routes",
    "tokens": "{}",
}
"""Nothing of this has to exist."""


class Described(NamedTuple):
    """A service's HTTP application, what it consumes, and the application object that both are made of."""

    app: FastAPI
    inbox: Inbox
    parts: IntakeApp | WorkflowApp | IdlookupApp | NotifyApp


def _intake() -> Described:
    app = IntakeApp(IntakeSettings.model_validate({"service": "intake", **NOWHERE}))
    return Described(intake_api.create_app(app), intake_handlers.inbox(), app)


def _workflow() -> Described:
    app = WorkflowApp(WorkflowSettings.model_validate({"service": "workflow", **NOWHERE}))
    return Described(workflow_api.create_app(app), workflow_handlers.inbox(app), app)


def _idlookup() -> Described:
    app = IdlookupApp(IdlookupSettings.model_validate({"service": "idlookup", **NOWHERE}))
    return Described(idlookup_api.create_app(app), idlookup_handlers.inbox(app), app)


def _notify() -> Described:
    app = NotifyApp.create(NotifySettings.model_validate({"service": "notify", **NOWHERE}))
    return Described(notify_api.create_app(app), notify_handlers.inbox(app), app)


SERVICES: dict[str, Callable[[], Described]] = {
    "intake": _intake,
    "workflow": _workflow,
    "idlookup": _idlookup,
    "notify": _notify,
}


def describe(service: str) -> Described:
    return SERVICES[service]()
