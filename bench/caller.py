"""A client that is not what limits: keep-alive connections that post prepared bodies one after the other.

A process of its own, started by `load`; it reads what to do as JSON from its standard input and answers in one line.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import uvloop

from shared.contract.envelope import new_id


@dataclass(frozen=True)
class Load:
    """What one measurement asks. Every request has a key of its own; bodies are taken in turn."""

    port: int
    path: str
    token: str
    bodies: tuple[str, ...]
    connections: int
    warm_s: float = 1.0
    window_s: float = 4.0


@dataclass(frozen=True)
class Answered:
    """What came back inside the window. `client_share`: how much of one core the client itself used."""

    per_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    client_share: float


async def load(asked: Load) -> Answered:
    """Run the client and wait for it. Raises RuntimeError with what it said when it failed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.caller",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(asdict(asked)).encode())
    if process.returncode:
        raise RuntimeError(err.decode(errors="replace")[-2000:])
    return Answered(**json.loads(out))


class _Caller(asyncio.Protocol):
    """One connection: the next request goes out when the last answer is whole."""

    def __init__(self, run: _Run) -> None:
        self._run, self._buffer, self._sent = run, b"", 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found or len(rest) < _length(head):
            return
        self._buffer = b""
        self._run.answered(head[9:12], self._sent)
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._run.over.is_set():
            self._run.lost = error or ConnectionError("the server closed a connection")
            self._run.over.set()

    def _next(self) -> None:
        if self._run.over.is_set():
            self._transport.close()
            return
        self._transport.write(self._run.request())
        self._sent = time.perf_counter()


def _length(head: bytes) -> int:
    at = head.lower().index(b"content-length:") + 15
    return int(head[at:].split(b"\r\n", 1)[0])


class _Run:
    def __init__(self, asked: Load) -> None:
        self._asked, self._run_id, self._numbers = asked, new_id().hex, count()
        self._bodies: Sequence[bytes] = [body.encode() for body in asked.bodies]
        self._heads = [
            f"POST {asked.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {asked.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: ".encode()
            for body in self._bodies
        ]
        self.over = asyncio.Event()
        self.lost: Exception | None = None
        self._waits: list[float] = []
        self._refused = 0
        self._counting = False

    def request(self) -> bytes:
        number = next(self._numbers)
        which = number % len(self._bodies)
        return b"%s%s-%d\r\n\r\n%s" % (self._heads[which], self._run_id.encode(), number, self._bodies[which])

    def answered(self, status: bytes, sent: float) -> None:
        if self._counting:
            self._waits.append(time.perf_counter() - sent)
            self._refused += status != b"201"

    async def measure(self) -> Answered:
        loop = asyncio.get_running_loop()
        for _ in range(self._asked.connections):
            await loop.create_connection(lambda: _Caller(self), "127.0.0.1", self._asked.port)
        await asyncio.sleep(self._asked.warm_s)
        began, busy = time.perf_counter(), time.process_time()
        self._counting = True
        try:
            async with asyncio.timeout(self._asked.window_s):
                await self.over.wait()
        except TimeoutError:
            self._counting = False
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        self.over.set()
        if self.lost is not None:
            raise self.lost
        cuts = statistics.quantiles(self._waits, n=100, method="inclusive")
        return Answered(
            round(len(self._waits) / seconds, 1),
            round(cuts[49] * 1000, 2),
            round(cuts[98] * 1000, 2),
            self._refused,
            round(busy / seconds, 2),
        )


async def _main() -> None:
    asked = Load(**json.load(sys.stdin))
    gc.disable()
    print(json.dumps(asdict(await _Run(asked).measure())))


if __name__ == "__main__":
    uvloop.run(_main())
