"""Which version of a procedure is in force on a day. Intake and workflow must agree, so both use this rule."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Protocol, TypeVar


class Versioned(Protocol):
    """What `version_in_force` needs of a version."""

    @property
    def version(self) -> int: ...
    @property
    def valid_from(self) -> date: ...


Version = TypeVar("Version", bound=Versioned)


def version_in_force(versions: Iterable[Version], day: date) -> Version | None:
    """The highest version that has begun by `day`; if none has, the one that begins first; None if there is none.

    A version replaces every lower one from its first day on, and also after its own last day. Otherwise a procedure
    that was closed by a version with a last day would be opened again by the version before it.
    """
    rows = list(versions)
    begun = [row for row in rows if row.valid_from <= day]
    if begun:
        return max(begun, key=lambda row: row.version)
    # Of two that begin on the same day, the higher one.
    return min(rows, key=lambda row: (row.valid_from, -row.version), default=None)
