"""The HTTP server of a process, and its orderly stop: "not ready" first, then the last answers, then the end.

On SIGTERM or SIGINT `/readyz` turns 503 at once, while requests are still taken and answered, each on a connection that
ends with it. After `drain_s`, when a load balancer has looked and goes elsewhere, the door is closed; requests under
way are finished. Without that pause a connection that waits at the door would be broken off, its request unanswered.
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
"""How long requests under way may take after the door is closed; then they are cancelled."""
KEEP_ALIVE_S = 75
"""An idle connection lives longer here than at a load balancer (60 s is usual), so that it is never ours to break."""


def serve(app: FastAPI, *, host: str, port: int, drain_s: float, on_stop: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT. `on_stop` is called as soon as one has come."""
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
        over = asyncio.get_running_loop().time() + self._drain_s
        while asyncio.get_running_loop().time() < over and not self.force_exit:  # noqa: ASYNC110 - uvicorn's flag
            await asyncio.sleep(min(0.1, self._drain_s))
        await super().shutdown(sockets)
