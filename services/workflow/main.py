"""Workflow: the only one that decides a dossier's status; the others answer what they are asked."""

from services.workflow import api, handlers
from shared.contract.events import LIFECYCLE
from shared.service import build, run
from shared.settings import Settings

if __name__ == "__main__":
    run(
        build(
            Settings(service="workflow"),
            routers=api.routers,
            listening=handlers.listening,
            state_of=api.state_of,
            state_source=LIFECYCLE,
            background=api.BACKGROUND,
            refreshers=api.REFRESHERS,
            on_ready=api.ON_READY,
        )
    )
