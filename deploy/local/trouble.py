"""What is wrong and what to do about it, in Vietnamese and English, for the person at the terminal."""

from __future__ import annotations

import sys


class Trouble(RuntimeError):
    """Something the person who started hoso can put right. `vi` and `en` say what is wrong and what to do."""

    def __init__(self, vi: str, en: str) -> None:
        super().__init__(f"{vi}\n{en}")
        self.vi = vi
        self.en = en


def tell(trouble: Trouble) -> None:
    """Print both sentences on stderr; a terminal that cannot show Vietnamese still gets every word."""
    for sentence in (trouble.vi, trouble.en):
        print(sentence, file=sys.stderr)
