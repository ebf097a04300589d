"""Notify: tells people that something happened to their dossier, once on each channel it is given."""

from services.notify.api import create_app
from services.notify.app import NotifyApp
from services.notify.settings import NotifySettings
from shared.service import run

if __name__ == "__main__":
    run(create_app(NotifyApp.create(NotifySettings(service="notify"))))
