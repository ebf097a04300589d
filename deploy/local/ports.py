"""Which port is whose, and whether it is free."""

from __future__ import annotations

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
    for _ in range(1000):
        base = random.randint(11_000, 32_000)
        if all(is_free(base + offset) for offset in offsets):
            return base
    raise RuntimeError("no free ports")
