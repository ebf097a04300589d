"""What an outside system remembers when its process is killed: one line of JSON for each thing it has done."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import orjson


class Book:
    """Lines in a file, or nowhere when `file` is None. Survives kill -9, not a power cut: it is a stand-in's memory."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._open: IO[bytes] | None = None

    def read(self) -> list[dict[str, Any]]:
        """What was noted by earlier processes. A last line that a kill has cut off was never answered: left out."""
        if self._file is None or not self._file.exists():
            return []
        written = self._file.read_bytes()
        whole = written.rpartition(b"\n")[0]
        if len(whole) + 1 < len(written):
            self._file.write_bytes(whole + b"\n" if whole else b"")
        return [orjson.loads(line) for line in whole.splitlines()]

    def note(self, **fact: Any) -> None:
        """Write one line; it is with the operating system when this returns, so before anybody is answered."""
        if self._file is None:
            return
        if self._open is None:
            self._open = self._file.open("ab", buffering=0)
        self._open.write(orjson.dumps(fact) + b"\n")
