"""What idlookup is told beside the settings of every service."""

from __future__ import annotations

from shared.settings import Settings


class IdlookupSettings(Settings):
    """Seconds are wall seconds, but `pending_after_s` and `forget_after_s`, which are office seconds."""

    call_deadline_s: float = 3.0
    """One call to the registry; after it the answer counts as lost. A lease is three of these."""
    issue_limit: int = 1024
    """Requests for a number standing unanswered at the registry, at most."""
    verify_limit: int = 256
    """The same for checks: their own limit, so that a flood of checks never holds up issuance."""
    pending_after_s: float = 14_400.0
    """A number that is not there after so long is reported as late, once."""
    forget_after_s: float = 86_400.0
    """A request nobody wants any more, and the registry knows nothing of, is asked after for so long."""
