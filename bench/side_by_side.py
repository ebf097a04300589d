"""Throughput, side by side: hoso, PostgreSQL's limit for hoso's very rows, and peers, in interleaved rounds."""

from __future__ import annotations

import asyncio
import importlib
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from bench import limit, rows, throughput
from bench.ground import SERVICES, Ground, ground
from bench.parts import Figures, Options
from bench.peers.running import Peer, running
from bench.throughput import WARM_UP_S, tens
from bench.workload import BIRTHS

PEERS_FIRST, PEERS_NEXT = 40, 160
"""A peer's first dossiers only see its processes awake; the next ones say how many fill a warm-up."""
PEERS = {
    "naive_faststream": "bench.peers.naive_faststream",
    "dbos": "bench.peers.dbos_workflows",
    "pgqueuer": "bench.peers.pgqueuer_jobs",
    "procrastinate": "bench.peers.procrastinate_jobs",
}
QUEUES = ("pgqueuer", "procrastinate")
"""Of the job queues the better counts."""
SHOWN = {
    "ours": "hoso",
    "postgres_limit": "PostgreSQL's limit for hoso's rows",
    "naive_faststream": "naive FastStream",
    "dbos": "DBOS",
    "pgqueuer": "pgqueuer",
    "procrastinate": "procrastinate",
}
WIDE = {"postgres_limit": 0.08, "naive_faststream": 3.0, "dbos": 8.0, "job_queue": 2.0}
"""In the short form: fewer times this than ours, and something is broken. The figures to reach are far beyond."""


@dataclass(frozen=True)
class Work:
    """The rows that so many dossiers of hoso's left behind."""

    rows: Counter[str]
    dossiers: int


async def measure(options: Options) -> Figures:
    """Dossiers a second: the median of the rounds, and every round's own."""
    rounds: dict[str, list[float]] = defaultdict(list)
    took: dict[str, list[float]] = defaultdict(list)
    console = Console(stderr=True)

    def seen(name: str, rate: float, seconds: float | None = None) -> None:
        rounds[name].append(round(rate, 1))
        if seconds is not None:
            took[name].append(round(seconds, 1))
        console.print(f"[dim]round {len(rounds[name])}: {name} {rate:,.1f}[/dim]")

    for _ in range(options.rounds):
        with ground() as place:
            count = tens(await throughput.warm_up(place, options.seconds) * options.seconds)
            rest(place)
            run = await throughput.run(place, count)
            seen("ours", run.rate, run.seconds)
            seen("births", count / BIRTHS / run.births_s)
            work = Work(await rows.settled(place, place.spent, place.spent // BIRTHS), place.spent)
            seen("postgres_limit", await limit.measure(place, place.spent))
            for service in SERVICES:
                await asyncio.to_thread(place.stack.take_down, service)
            await asyncio.to_thread(place.stack.restart, "broker")
            for name, module in PEERS.items():
                peer = cast(Peer, importlib.import_module(module))
                seen(name, *await peer_rate(place, peer, options.seconds, work))
    median = {name: round(statistics.median(rates), 1) for name, rates in rounds.items()}
    return {
        **{name: median[name] for name in ("ours", "postgres_limit", "naive_faststream", "dbos")},
        "job_queue": max(median[name] for name in QUEUES),
        "births": median["births"],
        "queues": {name: median[name] for name in QUEUES},
        "rounds": dict(rounds),
        "seconds": dict(took),
    }


async def peer_rate(place: Ground, peer: Peer, seconds: float, work: Work) -> tuple[float, float]:
    """One peer's round: started, warmed up, measured, its rows compared with ours, stopped. Returns (rate, seconds)."""
    async with running(place, peer) as started:
        await started.run(PEERS_FIRST)
        warm = await started.run(tens(await started.run(PEERS_NEXT) * min(WARM_UP_S, seconds)))
        rest(place)
        count = tens(warm * seconds)
        rate = await started.run(count)
        await rows.require_same(work.rows, work.dossiers, peer.NAME, started.place.dsn, started.offered)
        return rate, count / rate


def rest(place: Ground) -> None:
    """What the warm-up left for PostgreSQL to write is written now, not in somebody's run."""
    place.stack.postgres.execute("checkpoint")


def table(figures: Figures) -> Table:
    """Each contender's rate and how many times of it ours is."""
    rates: dict[str, Any] = {**figures, **figures["queues"]}
    shown = Table("", "dossiers/s", "rounds", "hoso : it", title="Throughput: five machine stages, all guarantees on")
    for name, label in SHOWN.items():
        rate = rates[name]
        each = " ".join(f"{one:,.0f}" for one in figures["rounds"][name])
        shown.add_row(label, f"{rate:,.0f}", each, f"{figures['ours'] / rate:.2f}")
    shown.add_row("hoso, births alone", f"{figures['births']:,.0f}", "", "")
    return shown


def broken(figures: Figures) -> list[str]:
    """By a wide margin: the ratios of WIDE are not held."""
    return [
        f"throughput: hoso is {figures['ours'] / figures[name]:.2f} times {name}; under {least} something is broken"
        for name, least in WIDE.items()
        if figures["ours"] < least * figures[name]
    ]
