"""Intake: takes dossiers, loses none, and needs nothing but its own database to do so."""

from services.intake.api import create_app
from services.intake.app import IntakeApp
from services.intake.settings import IntakeSettings
from shared.service import run

if __name__ == "__main__":
    run(create_app(IntakeApp(IntakeSettings(service="intake"))))
