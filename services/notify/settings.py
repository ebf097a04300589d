"""Notify's settings, beside the ones of every service that publishes and consumes."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import DeliverySettings


class NotifySettings(DeliverySettings):
    """All times in wall seconds."""

    seal_keys: SecretStr
    """`id:base64-of-32-bytes[,id:base64…]`; the first encrypts, all decrypt. Opens contacts."""
    sms_url: str = ""
    """The SMS/Zalo HTTP gateway; empty: those channels do not exist."""
    smtp: str = ""
    """HOST:PORT of the mail server; empty: that channel does not exist."""
    mail_from: str = "thong-bao@hoso.invalid"
    """Sender of e-mails; its domain also names their Message-IDs."""
    channel_deadline_s: float = 5.0
    """For one call to the gateway or one step with the mail server; a lease is three of these."""
    channel_tries: int = 10
