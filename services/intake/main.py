"""Intake: takes dossiers in, never loses one, and needs nobody but its own database to do so."""

import gc

from shared.service import build, run
from shared.settings import Settings

from . import api

if __name__ == "__main__":
    settings = Settings(service="intake")
    app = build(settings, routers=api.routers, listening=api.listening, background=api.BACKGROUND)
    # What a request leaves behind dies without the collector; walking the program for it took a quarter of intake's
    # time (docs/performance.md).
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    run(app)
