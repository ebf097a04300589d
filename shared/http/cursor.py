"""Cursors of lists: the position where a page ended, as text that a client sends back in `after`."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from shared.http.body import dumps
from shared.http.problems import bad_cursor

Parts = TypeVar("Parts", bound=tuple[Any, ...])

Timestamp = Annotated[
    AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC), strict=True)
]
"""A time that a row can have. Other times, e.g. in the year 9999, are errors in PostgreSQL or Python."""
Count = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Text = Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$", strict=True)]
MAX_CHARACTERS = 600
"""Length of a cursor's text."""


class Cursor(Generic[Parts]):
    """The codec of one list's cursors."""

    def __init__(self, shape: type[Parts]) -> None:
        """`shape`: the types of the columns that order the list, e.g. `tuple[Timestamp, UUID]`."""
        self._adapter = TypeAdapter(shape)

    def encode(self, parts: Parts) -> str:
        """The cursor's text; it needs no escaping in an address."""
        return base64.urlsafe_b64encode(dumps(parts)).decode().rstrip("=")

    def decode(self, text: str) -> Parts:
        """The parts of a cursor. Raises Problem 400 `bad-cursor` for text that `encode` did not write."""
        try:
            if len(text) > MAX_CHARACTERS:
                raise ValueError("too long")
            plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return self._adapter.validate_json(plain)
        except (binascii.Error, ValidationError, ValueError):
            raise bad_cursor() from None


def page(rows: list[Any], limit: int, following: str | None) -> dict[str, Any]:
    """A list's answer. `following` is the cursor of its last row; a page that is not full has no next one."""
    return {"items": rows, "next": following if len(rows) == limit else None}
