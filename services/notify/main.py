"""Notify: tells people that something happened to their dossier, once on each channel it is given."""

from services.notify import api
from services.notify.settings import NotifySettings
from shared.service import build, run

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
