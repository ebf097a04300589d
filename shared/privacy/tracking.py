"""The tracking secret of a dossier: computed from the dossier's id with a key, never stored."""

from __future__ import annotations

import base64
import hmac
from uuid import UUID


def tracking_secret(key: bytes, dossier_id: UUID) -> str:
    """The secret in the receipt's QR code: 26 characters of base32, 130 bits."""
    digest = hmac.digest(key, b"tracking:" + dossier_id.bytes, "sha256")
    return base64.b32encode(digest[:20])[:26].decode().lower()


def is_tracking_secret(key: bytes, dossier_id: UUID, given: str) -> bool:
    """Whether `given` is the dossier's secret, compared in constant time."""
    return hmac.compare_digest(tracking_secret(key, dossier_id).encode(), given.encode("utf-8", "replace"))
