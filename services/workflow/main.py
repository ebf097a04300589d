"""Starts workflow: the only service that decides a dossier's status."""

from services.workflow.api import create_app
from services.workflow.app import WorkflowApp
from services.workflow.settings import WorkflowSettings
from shared.service import run

if __name__ == "__main__":
    run(create_app(WorkflowApp(WorkflowSettings(service="workflow"))))
