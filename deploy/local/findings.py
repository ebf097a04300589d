"""A finding of `hoso doctor`: one sentence in each language, and its level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One result of a check. `wrong` must be fixed, `note` should be known."""

    level: Level
    vi: str
    en: str
