"""What `hoso doctor` finds: one sentence in each language, and how much it matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """`wrong` must be put right, `note` should be known."""

    level: Level
    vi: str
    en: str
