"""Starting and ending one process, so that it never outlives the one that started it."""

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
# The kernel ties "die with the parent" to the parent's thread: every process is started from one that never ends.
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
    """Start `command` in a session of its own (Ctrl-C at the terminal does not reach it), output appended to `log`.

    `user`: (uid, gid) to run as, where this process is root. `at_our_death` is the signal the kernel sends it when
    this process dies, however it dies. Raises OSError when the program is not there or may not be run.
    """
    parent = os.getpid()

    def tie() -> None:
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
                preexec_fn=tie,  # noqa: PLW1509 - only a system call; there is no other way before exec
                user=uid,
                group=gid,
                extra_groups=[] if user else None,
            )

    return _starter.submit(start).result()


def end(process: subprocess.Popen[bytes], how: int, grace: float) -> bool:
    """Send `how`, wait `grace` seconds, then SIGKILL. True when it went by itself."""
    if process.poll() is not None:
        return True
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(how)
        # A process that a test has frozen could not hear it otherwise.
        process.send_signal(signal.SIGCONT)
    try:
        process.wait(grace)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def tail(log: Path, lines: int = 12, since: int = 0) -> str:
    """The last lines of a log, for an error's sentence; none of them before the byte `since`."""
    try:
        with log.open("rb") as source:
            source.seek(max(since, log.stat().st_size - 8192))
            return "\n".join(source.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
