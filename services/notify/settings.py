"""Notify's own settings, beside the ones every service has."""

from __future__ import annotations

from shared.settings import Settings


class NotifySettings(Settings):
    """HOSO_MAIL_FROM and the patience of the channels. All times in wall seconds."""

    mail_from: str = "thong-bao@hoso.invalid"
    """Sender of e-mails; its domain also names their Message-IDs."""
    channel_deadline_s: float = 5.0
    """For one call to the gateway or one step with the mail server; a lease is three of these."""
    channel_tries: int = 10
