"""Intake's settings, beside the ones of every service that publishes and consumes."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import DeliverySettings


class IntakeSettings(DeliverySettings):
    """The two secrets with which intake seals what it takes."""

    seal_keys: SecretStr
    """`id:base64-of-32-bytes[,id:base64…]`; the first encrypts, all decrypt. Seals contacts, persons and subjects."""
    secret: SecretStr
    """Key of the citizens' tracking secrets, the same as workflow's."""
