"""Runs one peer beside an idle stack: starts its processes, offers dossiers, and waits until all are finished."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from bench.peers.setup import PeerSetup, drop_setup, make_setup
from bench.peers.steps import Message
from bench.testbed import Stalled, Testbed, connect
from bench.workload import is_birth, submissions
from deploy.local.environment import ROOT


class Peer(Protocol):
    """A peer's module; `python -m MODULE WORKER` runs one of its processes."""

    __name__: str
    NAME: str
    WORKERS: Sequence[str]

    async def install(self, setup: PeerSetup) -> None:
        """Create what the peer needs beside hoso's tables, before its processes start."""

    async def offer(self, setup: PeerSetup, submitted: list[Message]) -> None:
        """Hand over submissions. They are durable when it returns."""


class Running:
    """A peer with running processes."""

    def __init__(self, testbed: Testbed, setup: PeerSetup, peer: Peer) -> None:
        self._testbed, self.setup, self._peer = testbed, setup, peer
        self.offered = self._births = 0

    def make(self, count: int) -> list[Message]:
        """Return the next `count` dossiers as messages. They count as offered from now on."""
        testbed = self._testbed
        numbers = range(testbed.used + 1, testbed.used + 1 + count)
        testbed.used += count
        self.offered += count
        self._births += sum(is_birth(number) for number in numbers)
        new = submissions(testbed.examples, testbed.versions, testbed.sealer, testbed.clock.now(), numbers)
        return [Message.of(row.dossier_id, row.trace_id, row.trace_id, row.fact) for row in new]

    async def run(self, count: int, timeout_s: float = 300.0) -> float:
        """Return dossiers per second, from the first one offered to the last NoticeSent or IdNumberFound."""
        messages = self.make(count)
        started = datetime.now().astimezone()
        await self._peer.offer(self.setup, messages)
        return count / (await self.finished(timeout_s) - started).total_seconds()

    async def finished(self, timeout_s: float) -> datetime:
        """Wait until all offered dossiers are finished. Returns when the last event was recorded."""
        deadline = time.monotonic() + timeout_s
        async with connect(self.setup.dsn) as connection:
            while True:
                row = await connection.fetchrow(
                    "select count(*) filter (where type = 'NoticeSent') as notices,"
                    " count(*) filter (where type = 'IdNumberFound') as numbers, max(recorded_at) as last"
                    " from events where type in ('NoticeSent', 'IdNumberFound')"
                )
                assert row is not None
                if row["notices"] >= self.offered and row["numbers"] >= self._births:
                    last: datetime = row["last"]
                    return last
                if time.monotonic() > deadline:
                    raise Stalled(f"{self._peer.NAME}: {row['notices']} of {self.offered} notices after {timeout_s} s")
                await asyncio.sleep(0.3)


@contextlib.asynccontextmanager
async def running(testbed: Testbed, peer: Peer) -> AsyncIterator[Running]:
    """Run the peer's processes inside the block. Afterwards they are stopped and the database is dropped."""
    name = peer.__name__.rpartition(".")[2]
    setup = await make_setup(testbed, name)
    await peer.install(setup)
    assert testbed.stack.environment is not None
    env = {**testbed.stack.environment.plain(), **setup.env}
    processes = []
    try:
        for worker in peer.WORKERS:
            with testbed.stack.log(f"{name}-{worker}").open("ab") as log:
                command = [sys.executable, "-m", peer.__name__, worker]
                processes.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log))
        yield Running(testbed, setup, peer)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        drop_setup(testbed, name)
