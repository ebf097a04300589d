"""What idlookup is told beside the settings of every service."""

from __future__ import annotations

from shared.settings import Settings


class IdlookupSettings(Settings):
    """Seconds are wall seconds, but `pending_after_s`, which is office seconds."""

    call_deadline_s: float = 5.0
    """One call to the registry; after it the answer counts as lost."""
    issue_calls: int = 8
    """Calls about issuance in flight at most; each carries up to 50 requests."""
    verify_calls: int = 4
    """The same for checks: their own limit, so that a flood of checks never holds up issuance."""
    pending_after_s: float = 14_400.0
    """A number that is not there after so long is reported as late, once."""
