"""Workflow's settings, beside the ones of every service that publishes and consumes."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import DeliverySettings


class WorkflowSettings(DeliverySettings):
    """Workflow opens no sealed field, so it has no sealing keys."""

    secret: SecretStr
    """The key of the citizens' tracking secrets; intake has the same."""
