"""`python -m bench.recovery`: how long a kill stops the work: seconds from one kill to the next record of every lane.

Start event: SIGKILL (or, "stopped", SIGTERM) is sent to the victim while births arrive. End event: a record that was
committed after the kill (the end of the stopped process) has been applied by its reader, in every lane of every flow
that goes through the victim; `first_s` is the first of these lanes, `every_lane_s` the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from bench.ground import SERVICES, Stalled, one
from bench.workload import BIRTH
from deploy.chaos.load import LoadGenerator
from deploy.kafka.cluster import KafkaCluster
from deploy.local import ports
from deploy.local.stack import EMBEDDED, Stack
from deploy.machine import commit, machine

RESULT = Path(__file__).parent / "results" / "recovery.json"
LANES = 12
RATE = 25.0
"""Births a second: every lane has one every half second."""
SEED = 3
BOUND_S = {"embedded": 10.0, "apache": 30.0}
GIVE_UP_S = 120.0
LOOK_S = 0.25
FLOWS = (
    ("intake", "internal.submissions.v1", "workflow"),
    ("workflow", "internal.idnumber-requests.v1", "idlookup"),
    ("idlookup", "internal.idnumber-results.v1", "workflow"),
    ("workflow", "internal.notice-requests.v1", "notify"),
    ("notify", "internal.notices.v1", "workflow"),
)
"""(who tells, topic, who is told)"""
Flow = tuple[str, str, str]


@dataclass(frozen=True)
class Stop:
    """One try: seconds until the first lane went on, and until all had."""

    first_s: float
    every_lane_s: float


@dataclass
class Scene:
    """The stack under load. `kafka`: the real one, or None for the embedded broker, which forgets everything."""

    stack: Stack
    kafka: KafkaCluster | None
    seen: dict[str, Any]
    """Where people send: changed when they are to go to another instance."""
    console: Console
    measured: dict[str, list[Stop]] = field(default_factory=dict)

    async def applied(self, flow: Flow, since: float) -> dict[int, float]:
        """Lane -> when the first record committed after `since` was applied (seconds since 1970)."""
        teller, topic, told = flow
        moment = datetime.fromtimestamp(since, UTC)
        async with one(self.seen["databases"][teller]) as connection:
            rows = await connection.fetch(
                "select dossier_id, sequence, lane from events"
                " where topic::text = $1 and recorded_at > $2 and dossier_id is not null",
                topic,
                moment,
            )
        lanes = {(row["dossier_id"], row["sequence"]): row["lane"] for row in rows}
        async with one(self.seen["databases"][told]) as connection:
            rows = await connection.fetch(
                "select dossier_id, from_sequence, to_sequence, applied_at from applied"
                " where topic::text = $1 and applied_at > $2",
                topic,
                moment,
            )
        found: dict[int, float] = {}
        for row in rows:
            for sequence in range(row["from_sequence"], row["to_sequence"] + 1):
                lane = lanes.get((row["dossier_id"], sequence))
                if lane is not None:
                    found[lane] = min(found.get(lane, float("inf")), row["applied_at"].timestamp())
        return found

    async def until_every_lane(self, flows: list[Flow], since: float) -> tuple[float, float]:
        """When a record committed after `since` had been applied in the first and in all lanes of these flows.

        Seconds since 1970. Raises Stalled.
        """
        while time.time() < since + GIVE_UP_S:
            try:
                found = [await self.applied(flow, since) for flow in flows]
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                found = []
            if found and all(len(lanes) == LANES for lanes in found):
                moments = [moment for lanes in found for moment in lanes.values()]
                return min(moments), max(moments)
            await asyncio.sleep(LOOK_S)
        raise Stalled(f"{flows}: not every lane went on within {GIVE_UP_S:.0f} s")

    async def try_once(self, name: str, victim: str, act: Callable[[], Awaitable[Any]], *, ends: bool = False) -> None:
        """`ends`: the victim ends in order during `act`; what it still applies meanwhile does not count as going on."""
        flows = [flow for flow in FLOWS if victim in (flow[0], flow[2]) or victim not in SERVICES]
        begun = time.time()
        acting = asyncio.ensure_future(act())
        if ends:
            await acting
        first, last = await self.until_every_lane(flows, time.time() if ends else begun)
        self.measured.setdefault(name, []).append(Stop(first - begun, last - begun))
        self.console.print(f"{name}: {first - begun:.1f} s, every lane {last - begun:.1f} s", style="dim")
        await acting

    async def kill(self, victim: str) -> None:
        """kill -9; it is started again at once, as a supervisor does."""
        if victim != "broker" or self.kafka is None:
            await asyncio.to_thread(self.stack.kill, victim)
            return
        self.kafka.kill(0)
        await self.kafka.start_broker(0)

    async def take_over(self, service: str, *, killed: bool) -> None:
        """Two instances share the work; one goes and stays away."""
        other = await asyncio.to_thread(self.stack.add_instance, service, timeout=90)
        usual, self.seen[service] = self.seen[service], self.stack.endpoints["instances"][other]
        name = f"{service}, one of two {'killed' if killed else 'stopped'}"

        async def leave() -> None:
            if killed:
                await asyncio.to_thread(self.stack.kill, service, for_good=True)
            else:
                await asyncio.to_thread(self.stack.take_down, service)

        try:
            await self.try_once(name, service, leave, ends=not killed)
        finally:
            await asyncio.to_thread(self.stack.bring_back, service)
            await asyncio.to_thread(self.stack.wait_ready, 120)
            self.seen[service] = usual
            await asyncio.to_thread(self.stack.remove_instance, other)
            await asyncio.to_thread(self.stack.wait_ready, 120)


@asynccontextmanager
async def scene(broker: str, console: Console) -> AsyncIterator[Scene]:
    """A stack of our own with births arriving, on the embedded broker or on one Apache Kafka of our own."""
    with tempfile.TemporaryDirectory(prefix="hoso-recovery-") as temporary:
        folder = Path(temporary)
        kafka = None if broker == EMBEDDED else KafkaCluster(1, folder / "kafka", ports.free_base())
        if kafka is not None:
            await kafka.start()
        stack = Stack(
            folder / "data", port_base=ports.free_base(), broker=kafka.bootstrap if kafka else EMBEDDED, seed=SEED
        )
        over = asyncio.Event()
        try:
            await asyncio.to_thread(stack.start)
            await asyncio.to_thread(stack.wait_ready, 120)
            seen = stack.endpoints
            load = LoadGenerator(seen, SEED, RATE, mix=(BIRTH,))
            await load.learn()
            filing = asyncio.create_task(load.file_until(over))
            try:
                yield Scene(stack, kafka, seen, console)
            finally:
                over.set()
                await asyncio.gather(filing, return_exceptions=True)
                await load.close()
        finally:
            await asyncio.to_thread(stack.stop)
            if kafka is not None:
                await kafka.stop()


async def measure(broker: str, tries: int, console: Console) -> dict[str, Any]:
    """What was killed -> its tries, their median and worst. Seconds."""
    async with scene(broker, console) as place:
        await place.until_every_lane(list(FLOWS), time.time())
        for _ in range(tries):
            # One after the other, so that nobody dies so often that its supervisor makes it wait.
            for victim in (*SERVICES, "broker", "postgres"):
                await place.try_once(f"{victim} killed", victim, partial(place.kill, victim))
                await asyncio.to_thread(place.stack.wait_ready, 120)
            for service in SERVICES:
                await place.take_over(service, killed=True)
                await place.take_over(service, killed=False)
    return {name: _summed(stops) for name, stops in place.measured.items()}


def _summed(stops: list[Stop]) -> dict[str, Any]:
    every = [round(stop.every_lane_s, 2) for stop in stops]
    return {
        "first_s": round(statistics.median(stop.first_s for stop in stops), 2),
        "every_lane_s": round(statistics.median(every), 2),
        "worst_s": max(every),
        "tries_s": every,
    }


def table(broker: str, figures: dict[str, Any]) -> Table:
    shown = Table("what was ended", "first lane s", "every lane s", "worst s", title=f"{broker}: until work went on")
    for name, row in figures.items():
        shown.add_row(name, *(f"{row[key]:.1f}" for key in ("first_s", "every_lane_s", "worst_s")))
    return shown


def main() -> int:
    """Exit code 1 when a kill stopped a lane for longer than BOUND_S."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=__doc__)
    parser.add_argument("--broker", action="append", choices=list(BOUND_S), help="this one alone; both by default")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULT)
    said = parser.parse_args()
    console, late = Console(highlight=False), []
    for broker in said.broker or list(BOUND_S):
        figures = asyncio.run(measure(broker, said.tries, console))
        console.print(table(broker, figures))
        bound_s = BOUND_S[broker]
        late += [f"{broker}: {name}: {row['worst_s']} s" for name, row in figures.items() if row["worst_s"] > bound_s]
        stored = json.loads(said.json.read_text(encoding="utf-8")) if said.json.exists() else {}
        when = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "machine": machine()}
        stored[broker] = {**when, "bound_s": bound_s, "births_per_s": RATE, "ended": figures}
        said.json.write_text(json.dumps(stored, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for sentence in late:
        console.print(sentence, style="bold red")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
