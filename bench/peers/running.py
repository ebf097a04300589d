"""Runs one peer beside a stack that stands still: starts its processes, offers dossiers, waits for the end of all."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from bench.ground import Ground, Stalled, one
from bench.peers.place import Place, forget_place, make_place
from bench.peers.steps import Said
from bench.workload import is_birth, submissions
from deploy.local.environment import ROOT


class Peer(Protocol):
    """A peer's module; `python -m MODULE WORKER` runs one of its processes."""

    __name__: str
    NAME: str
    WORKERS: Sequence[str]

    async def install(self, place: Place) -> None:
        """Whatever the peer needs beside hoso's tables, before its processes start."""

    async def offer(self, place: Place, submitted: list[Said]) -> None:
        """Hand over submissions; they are durable when it returns."""


class Running:
    """A peer whose processes run."""

    def __init__(self, ground: Ground, place: Place, peer: Peer) -> None:
        self._ground, self.place, self._peer = ground, place, peer
        self.offered = self._births = 0

    def make(self, count: int) -> list[Said]:
        """The next `count` dossiers, as messages. They count as offered from here on."""
        ground = self._ground
        numbers = range(ground.spent + 1, ground.spent + 1 + count)
        ground.spent += count
        self.offered += count
        self._births += sum(is_birth(number) for number in numbers)
        new = submissions(ground.examples, ground.versions, ground.sealer, ground.clock.now(), numbers)
        return [Said.of(row.dossier_id, row.trace_id, row.trace_id, row.fact) for row in new]

    async def run(self, count: int, timeout_s: float = 300.0) -> float:
        """Dossiers a second, from the first one offered to the last NoticeSent or IdNumberFound, whichever is later."""
        made = self.make(count)
        started = datetime.now().astimezone()
        await self._peer.offer(self.place, made)
        return count / (await self.finished(timeout_s) - started).total_seconds()

    async def finished(self, timeout_s: float) -> datetime:
        """Wait for all that was offered; when the last of it was recorded."""
        deadline = time.monotonic() + timeout_s
        async with one(self.place.dsn) as connection:
            while True:
                row = await connection.fetchrow(
                    "select count(*) filter (where type = 'NoticeSent') as told,"
                    " count(*) filter (where type = 'IdNumberFound') as numbers, max(recorded_at) as last"
                    " from events where type in ('NoticeSent', 'IdNumberFound')"
                )
                assert row is not None
                if row["told"] >= self.offered and row["numbers"] >= self._births:
                    last: datetime = row["last"]
                    return last
                if time.monotonic() > deadline:
                    raise Stalled(f"{self._peer.NAME}: {row['told']} of {self.offered} notices after {timeout_s} s")
                await asyncio.sleep(0.3)


@contextlib.asynccontextmanager
async def running(ground: Ground, peer: Peer) -> AsyncIterator[Running]:
    """The peer's processes, started; stopped and its database dropped afterwards."""
    name = peer.__name__.rpartition(".")[2]
    place = await make_place(ground, name)
    await peer.install(place)
    assert ground.stack.environment is not None
    env = {**ground.stack.environment.plain(), **place.env}
    processes = []
    try:
        for worker in peer.WORKERS:
            with ground.stack.log(f"{name}-{worker}").open("ab") as log:
                command = [sys.executable, "-m", peer.__name__, worker]
                processes.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log))
        yield Running(ground, place, peer)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        forget_place(ground, name)
