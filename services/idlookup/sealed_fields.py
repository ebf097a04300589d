"""The names under which the personal data of a request are sealed."""

from __future__ import annotations

SEALED_AS = {"issue": "subject", "verify": "person"}
"""kind of request -> the name of its sealed field."""
