"""notify: sends people notices about their dossiers, each at most once on a channel."""

from services.notify.api import create_app
from services.notify.app import NotifyApp
from services.notify.settings import NotifySettings
from shared.service import run

if __name__ == "__main__":
    run(create_app(NotifyApp.create(NotifySettings(service="notify"))))
