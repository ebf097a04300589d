"""Notify: tells people that something happened to their dossier, once on each channel it is given."""

from shared.service import build, run

from . import api
from .settings import NotifySettings

if __name__ == "__main__":
    settings = NotifySettings(service="notify")
    run(
        build(
            settings,
            routers=api.routers,
            listening=api.listening,
            background=api.BACKGROUND,
            refreshers=api.REFRESHERS,
        )
    )
