"""`python -m bench.recovery`: measures how long a kill stops the work, from the kill to the next record of every lane.

Start event: SIGKILL (for "stopped", SIGTERM) is sent to the victim while births arrive. End event: a record that was
committed after the kill (after the end of the stopped process) is applied by its consumer, in every lane of every flow
through the victim. `first_s` is the first of these lanes, `every_lane_s` the last.
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
from typing import Any, NamedTuple

import asyncpg
from rich.console import Console
from rich.table import Table

from bench.testbed import SERVICES, Stalled, connect
from bench.workload import BIRTH
from deploy.chaos.load import LoadGenerator
from deploy.kafka.cluster import KafkaCluster
from deploy.local import ports
from deploy.local.stack import EMBEDDED, Stack
from deploy.machine import commit, machine

RESULT = Path(__file__).parent / "results" / "recovery.json"
LANES = 12
RATE = 25.0
"""Births per second: about one every half second in each lane."""
SEED = 3
BOUND_S = {"embedded": 10.0, "apache": 30.0}
GIVE_UP_S = 120.0
CHECK_S = 0.25


class Flow(NamedTuple):
    """One topic from its producer to one consumer."""

    producer: str
    topic: str
    consumer: str


FLOWS = (
    Flow("intake", "internal.submissions.v1", "workflow"),
    Flow("workflow", "internal.idnumber-requests.v1", "idlookup"),
    Flow("idlookup", "internal.idnumber-results.v1", "workflow"),
    Flow("workflow", "internal.notice-requests.v1", "notify"),
    Flow("notify", "internal.notices.v1", "workflow"),
)


@dataclass(frozen=True)
class Interruption:
    """One try: seconds until the first lane continued, and until every lane did."""

    first_s: float
    every_lane_s: float


@dataclass
class LoadedStack:
    """The stack under load. `kafka`: the real one, or None for the embedded broker, which loses everything."""

    stack: Stack
    kafka: KafkaCluster | None
    endpoints: dict[str, Any]
    """The addresses that the load uses; changed to send it to another instance."""
    console: Console
    measured: dict[str, list[Interruption]] = field(default_factory=dict)

    async def applied(self, flow: Flow, since: float) -> dict[int, float]:
        """Return lane -> when the first record committed after `since` was applied (seconds since 1970)."""
        producer, topic, consumer = flow
        since_at = datetime.fromtimestamp(since, UTC)
        async with connect(self.endpoints["databases"][producer]) as connection:
            rows = await connection.fetch(
                "select dossier_id, sequence, lane from events"
                " where topic::text = $1 and recorded_at > $2 and dossier_id is not null",
                topic,
                since_at,
            )
        lanes = {(row["dossier_id"], row["sequence"]): row["lane"] for row in rows}
        async with connect(self.endpoints["databases"][consumer]) as connection:
            rows = await connection.fetch(
                "select dossier_id, from_sequence, to_sequence, applied_at from applied"
                " where topic::text = $1 and applied_at > $2",
                topic,
                since_at,
            )
        first_at: dict[int, float] = {}
        for row in rows:
            for sequence in range(row["from_sequence"], row["to_sequence"] + 1):
                lane = lanes.get((row["dossier_id"], sequence))
                if lane is not None:
                    first_at[lane] = min(first_at.get(lane, float("inf")), row["applied_at"].timestamp())
        return first_at

    async def until_every_lane(self, flows: list[Flow], since: float) -> tuple[float, float]:
        """Wait until a record committed after `since` is applied in every lane of these flows.

        Returns when that was so in the first lane and in the last (seconds since 1970). Raises Stalled.
        """
        while time.time() < since + GIVE_UP_S:
            try:
                applied = [await self.applied(flow, since) for flow in flows]
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                applied = []
            if applied and all(len(lanes) == LANES for lanes in applied):
                times = [at for lanes in applied for at in lanes.values()]
                return min(times), max(times)
            await asyncio.sleep(CHECK_S)
        raise Stalled(f"{flows}: not every lane continued within {GIVE_UP_S:.0f} s")

    async def try_once(self, name: str, victim: str, act: Callable[[], Awaitable[Any]], *, ends: bool = False) -> None:
        """Measure one interruption. `ends`: `act` stops the victim cleanly; records it still applies do not count."""
        flows = [flow for flow in FLOWS if victim in (flow.producer, flow.consumer) or victim not in SERVICES]
        started = time.time()
        acting = asyncio.ensure_future(act())
        if ends:
            await acting
        first, last = await self.until_every_lane(flows, time.time() if ends else started)
        self.measured.setdefault(name, []).append(Interruption(first - started, last - started))
        self.console.print(f"{name}: {first - started:.1f} s, every lane {last - started:.1f} s", style="dim")
        await acting

    async def kill(self, victim: str) -> None:
        """Send SIGKILL; the victim is started again at once, as a supervisor does."""
        if victim != "broker" or self.kafka is None:
            await asyncio.to_thread(self.stack.kill, victim)
            return
        self.kafka.kill(0)
        await self.kafka.start_broker(0)

    async def take_over(self, service: str, *, killed: bool) -> None:
        """Measure with two instances of a service, one of which is killed or stopped and stays down."""
        other = await asyncio.to_thread(self.stack.add_instance, service, timeout=90)
        usual, self.endpoints[service] = self.endpoints[service], self.stack.endpoints["instances"][other]
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
            self.endpoints[service] = usual
            await asyncio.to_thread(self.stack.remove_instance, other)
            await asyncio.to_thread(self.stack.wait_ready, 120)


@asynccontextmanager
async def loaded_stack(broker: str, console: Console) -> AsyncIterator[LoadedStack]:
    """Run a stack with arriving births, on the embedded broker or on its own Apache Kafka."""
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
            endpoints = stack.endpoints
            load = LoadGenerator(endpoints, SEED, RATE, mix=(BIRTH,))
            await load.learn()
            filing = asyncio.create_task(load.file_until(over))
            try:
                yield LoadedStack(stack, kafka, endpoints, console)
            finally:
                over.set()
                await asyncio.gather(filing, return_exceptions=True)
                await load.close()
        finally:
            await asyncio.to_thread(stack.stop)
            if kafka is not None:
                await kafka.stop()


async def measure(broker: str, tries: int, console: Console) -> dict[str, Any]:
    """Return, for each kind of interruption, the median, the worst and all tries, in seconds."""
    async with loaded_stack(broker, console) as loaded:
        await loaded.until_every_lane(list(FLOWS), time.time())
        for _ in range(tries):
            # The victims take turns: a process that dies often is restarted after a longer pause.
            for victim in (*SERVICES, "broker", "postgres"):
                await loaded.try_once(f"{victim} killed", victim, partial(loaded.kill, victim))
                await asyncio.to_thread(loaded.stack.wait_ready, 120)
            for service in SERVICES:
                await loaded.take_over(service, killed=True)
                await loaded.take_over(service, killed=False)
    return {name: _summary(stops) for name, stops in loaded.measured.items()}


def _summary(stops: list[Interruption]) -> dict[str, Any]:
    every = [round(stop.every_lane_s, 2) for stop in stops]
    return {
        "first_s": round(statistics.median(stop.first_s for stop in stops), 2),
        "every_lane_s": round(statistics.median(every), 2),
        "worst_s": max(every),
        "tries_s": every,
    }


def table(broker: str, figures: dict[str, Any]) -> Table:
    table = Table("interrupted", "first lane s", "every lane s", "worst s", title=f"{broker}: until the work continued")
    for name, row in figures.items():
        table.add_row(name, *(f"{row[key]:.1f}" for key in ("first_s", "every_lane_s", "worst_s")))
    return table


def main() -> int:
    """Return exit code 1 when an interruption stopped a lane for longer than BOUND_S."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=__doc__)
    parser.add_argument("--broker", action="append", choices=list(BOUND_S), help="only this one (default: both)")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULT)
    arguments = parser.parse_args()
    console, late = Console(highlight=False), []
    for broker in arguments.broker or list(BOUND_S):
        figures = asyncio.run(measure(broker, arguments.tries, console))
        console.print(table(broker, figures))
        bound_s = BOUND_S[broker]
        late += [f"{broker}: {name}: {row['worst_s']} s" for name, row in figures.items() if row["worst_s"] > bound_s]
        stored = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.exists() else {}
        when = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "machine": machine()}
        stored[broker] = {**when, "bound_s": bound_s, "births_per_s": RATE, "ended": figures}
        arguments.json.write_text(json.dumps(stored, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for sentence in late:
        console.print(sentence, style="bold red")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
