"""The file of a simulated outside system, so that it survives a kill: one line of JSON per completed action."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import orjson


class Book:
    """Appends lines to `file`; keeps nothing when it is None. Survives SIGKILL but not a power cut."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._open: IO[bytes] | None = None

    def read(self) -> list[dict[str, Any]]:
        """Return the lines of earlier processes. Removes an incomplete last line: its action was never answered."""
        if self._file is None or not self._file.exists():
            return []
        content = self._file.read_bytes()
        complete = content.rpartition(b"\n")[0]
        if len(complete) + 1 < len(content):
            self._file.write_bytes(complete + b"\n" if complete else b"")
        return [orjson.loads(line) for line in complete.splitlines()]

    def note(self, **fact: Any) -> None:
        """Write one line. It is with the operating system when this returns: call it before the answer is sent."""
        if self._file is None:
            return
        if self._open is None:
            self._open = self._file.open("ab", buffering=0)
        self._open.write(orjson.dumps(fact) + b"\n")
