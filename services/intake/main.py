"""Intake: accepts dossiers and loses none. It needs no more than its own database for it."""

from services.intake.api import create_app
from services.intake.app import IntakeApp
from services.intake.settings import IntakeSettings
from shared.service import run

if __name__ == "__main__":
    run(create_app(IntakeApp(IntakeSettings(service="intake"))))
