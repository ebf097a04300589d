"""Which port is whose, and whether it is free."""

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
"""Below the ports that the system gives to outgoing connections (32768 and above on Linux)."""
HEADROOM = 10
"""Ports that one stack or one cluster takes above its first, at most."""
SHARE = "HOSO_PORT_SHARE"
"""Environment: "2/3" looks for free ports in the second third alone. Test processes side by side have a share each:
a port that one of them found free, or whose process it has just killed, is never taken by another."""


def is_free(port: int) -> bool:
    """Nothing listens on 127.0.0.1:`port` (a closed connection's TIME_WAIT does not count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(port: int, purpose: str) -> None:
    """Raises Trouble, which names the port, what it is for, and what to do."""
    if not is_free(port):
        raise Trouble(
            f"Cổng {port} (dành cho {purpose}) đang bị chương trình khác dùng. "
            f"Hãy dừng chương trình đó, hoặc chọn cổng khác bằng --port-base.",
            f"Port {port} (for {purpose}) is taken by another program. "
            f"Stop that program, or choose other ports with --port-base.",
        )


def free_port() -> int:
    """A port nobody listens on now, below those the system gives to outgoing connections; for tests."""
    return _find_base([0])


def free_base() -> int:
    """A base above which every port of `OFFSETS` is free; for tests."""
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
