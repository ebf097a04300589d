"""Workflow's settings, beside the ones of every service that publishes and consumes."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import DeliverySettings


class WorkflowSettings(DeliverySettings):
    """Workflow opens no sealed field, so it is given no sealing keys."""

    secret: SecretStr
    """Key of the citizens' tracking secrets, the same as intake's."""
