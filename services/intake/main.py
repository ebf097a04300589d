"""Intake: takes dossiers in, never loses one, and needs nobody but its own database to do so."""

from shared.service import build, run
from shared.settings import Settings

from . import api

if __name__ == "__main__":
    run(build(Settings(service="intake"), routers=api.routers, listening=api.listening, background=api.BACKGROUND,
              on_ready=api.ON_READY))  # fmt: skip
