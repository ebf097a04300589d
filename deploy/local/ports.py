"""The port of each process, and checks whether ports are free."""

from __future__ import annotations

import os
import random
import socket

from deploy.local.trouble import Trouble

OFFSETS = {
    "intake": 1,
    "workflow": 2,
    "idlookup": 3,
    "notify": 4,
    "registry": 5,
    "broker": 6,
    "postgres": 7,
    "sms": 8,
}
"""Port = base + offset."""

LOWEST, HIGHEST = 11_000, 32_000
"""Ports for tests, below those that the system gives to outgoing connections (32768 and above on Linux)."""
HEADROOM = 10
"""One stack or cluster uses at most this many ports above its first one."""
SHARE = "HOSO_PORT_SHARE"
"""Environment variable: "2/3" means that free ports come from the second third only. Each parallel test process has
its own share, so that no other process takes a port that one found free, or whose process it has just killed."""


def is_free(port: int) -> bool:
    """Return whether nothing listens on 127.0.0.1:`port`. A closed connection in TIME_WAIT does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(port: int, purpose: str) -> None:
    """Raise Trouble when `port` is taken. The message names the port, its purpose and what to do."""
    if not is_free(port):
        raise Trouble(
            f"Cổng {port} (dành cho {purpose}) đang bị chương trình khác dùng. "
            f"Hãy dừng chương trình đó, hoặc chọn cổng khác bằng --port-base.",
            f"Port {port} (for {purpose}) is used by another program. "
            f"Stop that program, or choose other ports with --port-base.",
        )


def free_port() -> int:
    """Return a free port between LOWEST and HIGHEST; for tests."""
    return _find_base([0])


def free_base() -> int:
    """Return a port base for which every port of OFFSETS is free; for tests."""
    return _find_base(list(OFFSETS.values()))


def _find_base(offsets: list[int]) -> int:
    part, _, parts = os.environ.get(SHARE, "1/1").partition("/")
    width = (HIGHEST - LOWEST) // int(parts)
    lowest = LOWEST + (int(part) - 1) * width
    for _ in range(1000):
        base = random.randrange(lowest, lowest + width - HEADROOM)
        if all(is_free(base + offset) for offset in offsets):
            return base
    raise RuntimeError("no free ports")
