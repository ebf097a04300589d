"""Kept-open HTTP connections to one server, cheap enough for thousands of small messages a second.

One request at a time on each line, answers with a Content-Length or in chunks. httpx2 costs about ten times the
processor time for the same message (measured: 500 against 50 microseconds), which on two cores is the whole machine.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

LARGEST_ANSWER = 65_536
"""Bytes of an answer's body; whoever sends more is not the gateway we know."""
IDLE_S = 20.0
"""A line idle for longer is not used again: the server may be about to close it."""


class NoAnswer(OSError):
    """The request may or may not have had its effect."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    body: bytes


class _Line(asyncio.Protocol):
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
        if self._answer is None or len(self._body) > LARGEST_ANSWER:
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

    async def ask(self, request: bytes) -> HttpAnswer:
        if not self.usable or self._transport is None:
            raise NoAnswer("the line is closed")
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
    """Up to as many connections as there are requests at once; the caller bounds those."""

    def __init__(self, url: str, deadline_s: float) -> None:
        """`url`: http or https, its path is put before every path asked for. Raises ValueError for any other."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("a gateway's address is http://HOST[:PORT] or https://HOST[:PORT]")
        self._host, self._deadline_s = parts.hostname, deadline_s
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._named = parts.netloc
        self._root = parts.path.rstrip("/")
        self._idle: list[_Line] = []

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> HttpAnswer:
        """One request. Raises OSError or TimeoutError (after the deadline, in wall seconds) when no answer came."""
        head = {"Host": self._named, "Accept": "application/json", "Content-Length": str(len(body)), **headers}
        lines = [f"{method} {self._root}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        async with asyncio.timeout(self._deadline_s):
            line = self._find_idle() or await self._connect()
            try:
                answer = await line.ask("\r\n".join(lines).encode("ascii") + body)
            except BaseException:
                line.close()
                raise
        if line.usable:
            line.idle_since = time.monotonic()
            self._idle.append(line)
        else:
            line.close()
        return answer

    def _find_idle(self) -> _Line | None:
        oldest = time.monotonic() - IDLE_S
        while self._idle:
            line = self._idle.pop()
            if line.usable and line.idle_since > oldest:
                return line
            line.close()
        return None

    async def _connect(self) -> _Line:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(_Line, self._host, self._port, ssl=self._tls)
        return line

    def close(self) -> None:
        for line in self._idle:
            line.close()
        self._idle.clear()
