"""Times in answers: always with Vietnam's offset, +07:00, whatever offset the value has."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, PlainSerializer, WithJsonSchema

from shared.clock import VIETNAM


def in_vietnam(at: datetime) -> str:
    return at.astimezone(VIETNAM).isoformat()


VietnamTime = Annotated[
    AwareDatetime,
    PlainSerializer(in_vietnam, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2025-08-27T09:00:00+07:00"]}),
]
"""A time in the model of an answer, office or wall time: RFC 3339 with +07:00."""
