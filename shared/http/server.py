"""The HTTP server of a process, and its graceful stop.

On SIGTERM or SIGINT `/readyz` answers 503 at once. For `drain_s` seconds requests are still accepted, each on a
connection that is closed after its answer, until the load balancer has noticed and sends no more. Then the socket is
closed, and requests under way are finished. Without the pause, connections in the socket's backlog would be reset.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import structlog
import uvicorn
from fastapi import FastAPI

log = structlog.get_logger(__name__)

FINISH_S = 20
"""Seconds that requests under way may take after the socket is closed; then they are cancelled."""
KEEP_ALIVE_S = 75
"""Longer than a load balancer keeps an idle connection (60 s is usual), so that the balancer closes it and not we."""


def serve(app: FastAPI, *, host: str, port: int, drain_s: float, on_stop: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully. `on_stop` is called at the signal, before the pause."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=FINISH_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        h11_max_incomplete_event_size=65_536,
    )
    _Server(config, drain_s, on_stop).run()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, drain_s: float, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain_s, self._on_stop = drain_s, on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        log.info("stopping", drain_s=self._drain_s)
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        drained_at = asyncio.get_running_loop().time() + self._drain_s
        while asyncio.get_running_loop().time() < drained_at and not self.force_exit:  # noqa: ASYNC110 - uvicorn's flag
            await asyncio.sleep(min(0.1, self._drain_s))
        await super().shutdown(sockets)
