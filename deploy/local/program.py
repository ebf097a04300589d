"""One of hoso's own programs as a process: command, environment, log."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import ports
from deploy.local.processes import end, spawn


@dataclass
class Program:
    """A command that listens on `port` when it is ready. `env` is the process's whole environment."""

    name: str
    command: Sequence[str]
    port: int
    env: Mapping[str, str]
    cwd: Path
    log: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        """Its process id; None when it is not running."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process is not None else None

    def start(self) -> None:
        """Start it and return at once, before it is ready. Raises Trouble (port taken) or OSError."""
        if self.pid is not None:
            return
        ports.require_free(self.port, self.name)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = spawn(self.command, log=self.log, env=self.env, cwd=self.cwd)

    def stop(self, grace: float = 25.0) -> None:
        """Send SIGTERM, then SIGKILL after `grace` seconds."""
        if self._process is not None:
            end(self._process, signal.SIGTERM, grace)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def poll(self) -> int | None:
        """Return the exit status after it has ended, None while it runs, 0 when it was never started."""
        return self._process.poll() if self._process is not None else 0
