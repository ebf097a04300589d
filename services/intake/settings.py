"""Intake's own settings, beside those of every service that publishes and consumes."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import DeliverySettings


class IntakeSettings(DeliverySettings):
    """The keys that seal personal data, and the key of the tracking secrets."""

    seal_keys: SecretStr
    """`id:base64-of-32-bytes[,id:base64…]`; the first encrypts, all decrypt. They seal contacts, persons, subjects."""
    secret: SecretStr
    """Key of the citizens' tracking secrets; workflow has the same."""
