"""Kept-open HTTP connections to one server, for thousands of small messages per second (docs/decisions/0009).

Each connection carries one request at a time. Answers have a Content-Length or come in chunks.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

MAX_ANSWER_BYTES = 65_536
"""A server that sends a longer body is not the gateway we know."""
IDLE_S = 20.0
"""A connection idle for longer is not used again, because the server may be about to close it."""


class NoAnswer(OSError):
    """The request may or may not have had its effect."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The status and body of an answer."""

    status: int
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection. After any error, or data that nobody asked for, it is closed."""

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._body = bytearray()
        self.idle_since = 0.0
        self.usable = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport  # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
        if self._answer is None or len(self._body) > MAX_ANSWER_BYTES:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(HttpAnswer(self._parser.get_status_code(), bytes(self._body)))
        else:
            self.usable = False

    async def exchange(self, request: bytes) -> HttpAnswer:
        """Send a request and wait for its answer. Raises NoAnswer when the connection is closed or breaks off."""
        if not self.usable or self._transport is None:
            raise NoAnswer("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._body.clear()
        self._transport.write(request)
        answer = await self._answer
        self._answer = None
        return answer

    def close(self) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NoAnswer("the connection broke off"))
        if self._transport is not None:
            self._transport.abort()


class ConnectionPool:
    """Opens as many connections as there are requests at once; the caller bounds those."""

    def __init__(self, url: str, deadline_s: float) -> None:
        """`url`: http or https; its path is the prefix of every path requested. `deadline_s`: wall seconds per request.

        Raises ValueError for any other address.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("a gateway's address is http://HOST[:PORT] or https://HOST[:PORT]")
        self._host, self._deadline_s = parts.hostname, deadline_s
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._host_header = parts.netloc
        self._root = parts.path.rstrip("/")
        self._idle: list[_Connection] = []

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> HttpAnswer:
        """Send one request. Raises OSError or TimeoutError (after the deadline) when no answer came."""
        head = {"Host": self._host_header, "Accept": "application/json", "Content-Length": str(len(body)), **headers}
        rows = [f"{method} {self._root}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        async with asyncio.timeout(self._deadline_s):
            connection = self._find_idle() or await self._connect()
            try:
                answer = await connection.exchange("\r\n".join(rows).encode("ascii") + body)
            except BaseException:
                connection.close()
                raise
        if connection.usable:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _find_idle(self) -> _Connection | None:
        oldest = time.monotonic() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return connection

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
