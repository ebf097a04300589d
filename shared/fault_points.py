"""Named points in the code where a test kills the process, to prove that nothing is lost there. Off by default.

HOSO_FAULT=`name` or `name:3` kills the process (SIGKILL) when it passes that point with work at stake for the first, or
third, time. With HOSO_FAULT_FILE it happens once: the file is created just before, and a later process lives on.
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
    """`wanted`: `name`, `name:count` or "". Raises ValueError for a fault point that does not exist."""
    name, _, count = wanted.partition(":")
    if name and name not in FAULT_POINTS:
        raise ValueError(f"no fault point is called {name}")
    _Armed.name, _Armed.left, _Armed.file = name, int(count or "1"), Path(file) if file else None


def fault_point(name: str, at_stake: int) -> None:
    """Kill this process, as `kill -9` does, when a test has armed this point.

    `at_stake`: how much work a death here could lose or do twice; heartbeats and repeats do not count. With 0 the
    process lives and the pass is not counted, because a death would prove nothing.
    """
    if name != _Armed.name or not at_stake:
        return
    _Armed.left -= 1
    if _Armed.left > 0 or (_Armed.file is not None and _Armed.file.exists()):
        return
    if _Armed.file is not None:
        _Armed.file.touch()
    os.kill(os.getpid(), signal.SIGKILL)
