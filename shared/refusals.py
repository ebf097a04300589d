"""How a rule says no: `Refused` for one reason, `Complaints` for everything wrong with what was sent.

Rules raise these and know nothing of HTTP; `shared.http.problems` turns them into problem+json. A validator of a
pydantic model raises `broken_rule`. Sentences are in Vietnamese and English and never repeat what was sent, because it
may be somebody's name or number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

RULE = "rule"
"""The pydantic error type of `broken_rule`; also the `code` of its row in a problem."""


class Refused(Exception):
    """A command that cannot be carried out.

    `code` is stable and part of the HTTP contract. `conflict`: the present state forbids it (HTTP 409); otherwise the
    command itself is wrong (HTTP 422).
    """

    def __init__(self, code: str, vi: str, en: str, *, conflict: bool = False) -> None:
        super().__init__(code)
        self.code, self.vi, self.en, self.conflict = code, vi, en, conflict


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong. `field` names the place, parts joined by `/`; `code` is stable."""

    field: str
    code: str
    vi: str
    en: str


class Complaints(Exception):
    """Everything that is wrong with what was sent (HTTP 422). `code`, `vi` and `en` are about the whole."""

    def __init__(self, code: str, vi: str, en: str, complaints: Sequence[Complaint]) -> None:
        super().__init__(code)
        self.code, self.vi, self.en, self.complaints = code, vi, en, tuple(complaints)


def broken_rule(vi: str, en: str) -> PydanticCustomError:
    """The error that a validator raises to explain itself in both languages."""
    return PydanticCustomError(RULE, "{en}", {"vi": vi, "en": en})
