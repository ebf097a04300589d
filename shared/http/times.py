"""Times as other people see them: with the centre's offset, +07:00, whatever zone a value was stored with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, PlainSerializer, WithJsonSchema

from shared.clock import VIETNAM


def in_vietnam(at: datetime) -> str:
    return at.astimezone(VIETNAM).isoformat()


OfficeTime = Annotated[
    AwareDatetime,
    PlainSerializer(in_vietnam, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2025-08-27T09:00:00+07:00"]}),
]
"""For answers' models: RFC 3339 with +07:00."""
