"""notify's settings, beside those of every service that publishes and consumes."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import DeliverySettings


class NotifySettings(DeliverySettings):
    """All times in wall seconds."""

    seal_keys: SecretStr
    """`id:base64-of-32-bytes[,id:base64…]`; the first encrypts, all decrypt. Opens contacts."""
    sms_url: str = ""
    """Address of the HTTP gateway for SMS and Zalo; empty: these channels do not exist."""
    smtp: str = ""
    """HOST:PORT of the mail server; empty: this channel does not exist."""
    mail_from: str = "thong-bao@hoso.invalid"
    """Sender of e-mails; its domain also names their Message-IDs."""
    channel_deadline_s: float = 5.0
    """For one call to the gateway or one step with the mail server; a lease is three of these."""
    channel_tries: int = 10
    """How often a channel is tried before the next one takes over."""
