"""Named places where a test ends the process, to prove that nothing is lost there. Off unless settings arm one.

HOSO_FAULT=`name` or `name:3` kills the process (SIGKILL) the first, or third, time it passes that place with work in
hand, once per HOSO_FAULT_FILE: the file is created just before, and a process that finds it there lives.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

FAULT_POINTS = (
    "intake-before-commit",
    "intake-after-commit",
    "consumer-before-stage",
    "consumer-before-commit",
    "consumer-after-commit",
    "relay-before-send",
    "relay-after-send",
    "relay-after-cursor",
    "idlookup-before-call",
    "idlookup-after-answer",
    "idlookup-before-commit",
    "notify-before-send",
    "notify-after-send",
)


class _Armed:
    name = ""
    left = 0
    file: Path | None = None


def arm(wanted: str, file: str = "") -> None:
    """`wanted` is `name`, `name:count` or empty. Raises ValueError for a place that does not exist."""
    name, _, count = wanted.partition(":")
    if name and name not in FAULT_POINTS:
        raise ValueError(f"no fault point is called {name}")
    _Armed.name, _Armed.left, _Armed.file = name, int(count or "1"), Path(file) if file else None


def fault_point(name: str, at_stake: int) -> None:
    """Die here, as `kill -9` would, if a test asked for it.

    `at_stake`: how much real work, no heartbeats and no repeats, a death here could lose or double. With none, nobody
    dies and the time is not counted: it would prove nothing.
    """
    if name != _Armed.name or not at_stake:
        return
    _Armed.left -= 1
    if _Armed.left > 0 or (_Armed.file is not None and _Armed.file.exists()):
        return
    if _Armed.file is not None:
        _Armed.file.touch()
    os.kill(os.getpid(), signal.SIGKILL)
