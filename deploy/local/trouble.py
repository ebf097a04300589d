"""An error for the person at the terminal: what is wrong and what to do, in Vietnamese and English."""

from __future__ import annotations

import sys


class Trouble(RuntimeError):
    """An error that the person who started hoso can fix. `vi` and `en` say what is wrong and what to do."""

    def __init__(self, vi: str, en: str) -> None:
        super().__init__(f"{vi}\n{en}")
        self.vi = vi
        self.en = en


def tell(trouble: Trouble) -> None:
    """Print both sentences on stderr."""
    for sentence in (trouble.vi, trouble.en):
        print(sentence, file=sys.stderr)
