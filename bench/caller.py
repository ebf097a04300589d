"""A client that is fast enough not to be the limit: keep-alive connections that post prepared bodies in turn.

`load` starts it as a separate process. It reads a Load as JSON from standard input and prints the result as one line.
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
    """The load of one measurement. Every request has its own idempotency key; the bodies are used in turn."""

    port: int
    path: str
    token: str
    bodies: tuple[str, ...]
    connections: int
    warm_s: float = 1.0
    window_s: float = 4.0


@dataclass(frozen=True)
class LoadResult:
    """The answers inside the window. `client_share`: the share of one core that the client itself used."""

    per_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    client_share: float


async def load(plan: Load) -> LoadResult:
    """Run the client process and wait for its result. Raises RuntimeError with its output when it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.caller",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(asdict(plan)).encode())
    if process.returncode:
        raise RuntimeError(err.decode(errors="replace")[-2000:])
    return LoadResult(**json.loads(out))


class _Caller(asyncio.Protocol):
    """One connection: it sends the next request when the last answer is complete."""

    def __init__(self, run: _Run) -> None:
        self._run, self._buffer, self._sent = run, b"", 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(rest) < _length(head):
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
    start = head.lower().index(b"content-length:") + 15
    return int(head[start:].split(b"\r\n", 1)[0])


class _Run:
    def __init__(self, plan: Load) -> None:
        self._plan, self._run_id, self._numbers = plan, new_id().hex, count()
        self._bodies: Sequence[bytes] = [body.encode() for body in plan.bodies]
        self._heads = [
            f"POST {plan.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {plan.token}\r\n"
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
        index = number % len(self._bodies)
        return b"%s%s-%d\r\n\r\n%s" % (self._heads[index], self._run_id.encode(), number, self._bodies[index])

    def answered(self, status: bytes, sent: float) -> None:
        if self._counting:
            self._waits.append(time.perf_counter() - sent)
            self._refused += status != b"201"

    async def measure(self) -> LoadResult:
        loop = asyncio.get_running_loop()
        for _ in range(self._plan.connections):
            await loop.create_connection(lambda: _Caller(self), "127.0.0.1", self._plan.port)
        await asyncio.sleep(self._plan.warm_s)
        started, busy = time.perf_counter(), time.process_time()
        self._counting = True
        try:
            async with asyncio.timeout(self._plan.window_s):
                await self.over.wait()
        except TimeoutError:
            self._counting = False
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        self.over.set()
        if self.lost is not None:
            raise self.lost
        cuts = statistics.quantiles(self._waits, n=100, method="inclusive")
        return LoadResult(
            round(len(self._waits) / seconds, 1),
            round(cuts[49] * 1000, 2),
            round(cuts[98] * 1000, 2),
            self._refused,
            round(busy / seconds, 2),
        )


async def _main() -> None:
    plan = Load(**json.load(sys.stdin))
    gc.disable()
    print(json.dumps(asdict(await _Run(plan).measure())))


if __name__ == "__main__":
    uvloop.run(_main())
