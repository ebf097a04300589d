"""Throughput side by side: hoso, PostgreSQL's limit for the same rows, and the peers, in interleaved rounds."""

from __future__ import annotations

import asyncio
import importlib
import statistics
from collections import defaultdict
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from bench import limit, rows, throughput
from bench.parts import Figures, Options
from bench.peers.running import Peer, running
from bench.testbed import SERVICES, Testbed, open_testbed
from bench.throughput import WARM_UP_S, tens
from bench.workload import BIRTHS

PEERS_FIRST, PEERS_NEXT = 40, 160
"""A peer's first dossiers only show that its processes run; the next ones give the size of its warm-up."""
PEERS = {
    "naive_faststream": "bench.peers.naive_faststream",
    "dbos": "bench.peers.dbos_workflows",
    "pgqueuer": "bench.peers.pgqueuer_jobs",
    "procrastinate": "bench.peers.procrastinate_jobs",
}
QUEUES = ("pgqueuer", "procrastinate")
"""The better of the two job queues counts."""
LABELS = {
    "ours": "hoso",
    "postgres_limit": "PostgreSQL's limit for hoso's rows",
    "naive_faststream": "naive FastStream",
    "dbos": "DBOS",
    "pgqueuer": "pgqueuer",
    "procrastinate": "procrastinate",
}
MIN_RATIOS = {"postgres_limit": 0.08, "naive_faststream": 3.0, "dbos": 8.0, "job_queue": 2.0}
"""hoso over each contender: below this ratio something must be broken. The wanted ratios are far higher."""


async def measure(options: Options) -> Figures:
    """Return dossiers per second: the median of the rounds, and each round's figure."""
    rounds: dict[str, list[float]] = defaultdict(list)
    durations: dict[str, list[float]] = defaultdict(list)
    console = Console(stderr=True)

    def record(name: str, rate: float, seconds: float | None = None) -> None:
        rounds[name].append(round(rate, 1))
        if seconds is not None:
            durations[name].append(round(seconds, 1))
        console.print(f"[dim]round {len(rounds[name])}: {name} {rate:,.1f}[/dim]")

    for _ in range(options.rounds):
        with open_testbed() as testbed:
            count = tens(await throughput.warm_up(testbed, options.seconds) * options.seconds)
            checkpoint(testbed)
            run = await throughput.run(testbed, count)
            record("ours", run.rate, run.seconds)
            record("births", count / BIRTHS / run.births_s)
            work = await rows.finished_work(testbed, testbed.used, testbed.used // BIRTHS)
            record("postgres_limit", await limit.measure(testbed, testbed.used))
            for service in SERVICES:
                await asyncio.to_thread(testbed.stack.take_down, service)
            await asyncio.to_thread(testbed.stack.restart, "broker")
            for name, module in PEERS.items():
                peer = cast(Peer, importlib.import_module(module))
                record(name, *await peer_rate(testbed, peer, options.seconds, work))
    median = {name: round(statistics.median(rates), 1) for name, rates in rounds.items()}
    return {
        **{name: median[name] for name in ("ours", "postgres_limit", "naive_faststream", "dbos")},
        "job_queue": max(median[name] for name in QUEUES),
        "births": median["births"],
        "queues": {name: median[name] for name in QUEUES},
        "rounds": dict(rounds),
        "seconds": dict(durations),
    }


async def peer_rate(testbed: Testbed, peer: Peer, seconds: float, work: rows.Work) -> tuple[float, float]:
    """Measure one round of a peer and compare its rows with hoso's. Returns (dossiers per second, seconds)."""
    async with running(testbed, peer) as started:
        await started.run(PEERS_FIRST)
        warm = await started.run(tens(await started.run(PEERS_NEXT) * min(WARM_UP_S, seconds)))
        checkpoint(testbed)
        count = tens(warm * seconds)
        rate = await started.run(count)
        await rows.require_same(work, peer.NAME, started.setup.dsn, started.offered)
        return rate, count / rate


def checkpoint(testbed: Testbed) -> None:
    """Write what the warm-up left in PostgreSQL's memory to disk, so that it does not slow down the next run."""
    testbed.stack.postgres.execute("checkpoint")


def table(figures: Figures) -> Table:
    """Return each contender's rate and the ratio of hoso to it."""
    rates: dict[str, Any] = {**figures, **figures["queues"]}
    table = Table("", "dossiers/s", "rounds", "hoso : it", title="Throughput: five machine stages, all guarantees on")
    for name, label in LABELS.items():
        rate = rates[name]
        each = " ".join(f"{rate:,.0f}" for rate in figures["rounds"][name])
        table.add_row(label, f"{rate:,.0f}", each, f"{figures['ours'] / rate:.2f}")
    table.add_row("hoso, births alone", f"{figures['births']:,.0f}", "", "")
    return table


def broken(figures: Figures) -> list[str]:
    """Fails below the ratios of MIN_RATIOS."""
    return [
        f"throughput: hoso is {figures['ours'] / figures[name]:.2f} times {name}; under {minimum} something is broken"
        for name, minimum in MIN_RATIOS.items()
        if figures["ours"] < minimum * figures[name]
    ]
