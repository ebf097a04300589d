"""idlookup's settings, beside those of every service that publishes and consumes."""

from __future__ import annotations

from pydantic import SecretStr

from shared.settings import DeliverySettings


class IdlookupSettings(DeliverySettings):
    """Seconds are wall seconds, except `pending_after_s` and `forget_after_s`, which are office seconds."""

    seal_keys: SecretStr
    """`id:base64-of-32-bytes[,id:base64…]`; the first encrypts, all decrypt. Opens persons, seals numbers."""
    registry_url: str = ""
    """Address of the population registry or its simulator; empty: there is none."""
    call_deadline_s: float = 3.0
    """One call to the registry; after it the answer counts as lost. A lease is three of these."""
    issue_limit: int = 1024
    """The most requests for a number that may be without an answer at the registry."""
    verify_limit: int = 256
    """The same for checks. They have their own limit, so that a flood of checks does not delay numbers."""
    pending_after_s: float = 14_400.0
    """A number without an answer after this time is reported as late, once."""
    forget_after_s: float = 86_400.0
    """How long the registry is asked about a request that is no longer wanted and that it does not know."""
