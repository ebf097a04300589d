"""Intake: takes dossiers in, never loses one, and needs nobody but its own database to do so."""

from services.intake import api
from shared.service import build, run
from shared.settings import Settings

if __name__ == "__main__":
    settings = Settings(service="intake")
    app = build(settings, routers=api.routers, listening=api.listening, background=api.BACKGROUND)
    run(app)
