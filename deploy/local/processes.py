"""Starts and ends one process. The process never outlives the one that started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
# The kernel sends PDEATHSIG when the parent's *thread* ends, so one thread that never ends starts every process.
_starter = ThreadPoolExecutor(1, thread_name_prefix="hoso-starter")


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: tuple[int, int] | None = None,
    at_our_death: int = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start `command` in a new session (Ctrl-C at the terminal does not reach it) and append its output to `log`.

    `user`: (uid, gid) to run as, when this process is root. `at_our_death`: the signal that the kernel sends to the
    new process when this one dies. Raises OSError when the program is missing or may not be run.
    """
    parent = os.getpid()

    def tie_to_parent() -> None:
        if _prctl is not None:
            _prctl(PR_SET_PDEATHSIG, int(at_our_death), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    def start() -> subprocess.Popen[bytes]:
        uid, gid = user or (None, None)
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=tie_to_parent,  # noqa: PLW1509 - one system call; it must run before exec
                user=uid,
                group=gid,
                extra_groups=[] if user else None,
            )

    return _starter.submit(start).result()


def end(process: subprocess.Popen[bytes], how: int, grace: float) -> bool:
    """Send the signal `how`, wait `grace` seconds, then send SIGKILL. Returns True when SIGKILL was not needed."""
    if process.poll() is not None:
        return True
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(how)
        # A stopped process (SIGSTOP) handles the signal only after SIGCONT.
        process.send_signal(signal.SIGCONT)
    try:
        process.wait(grace)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def tail(log: Path, lines: int = 12, since: int = 0) -> str:
    """Return the last lines of a log for an error message, none of them before byte `since`."""
    try:
        with log.open("rb") as source:
            source.seek(max(since, log.stat().st_size - 8192))
            return "\n".join(source.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
