"""hoso's throughput on a real Apache Kafka, one broker of its own on this machine, instead of the embedded one."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from rich.table import Table

from bench import throughput
from bench.ground import ground
from bench.parts import Figures, Options
from bench.side_by_side import rest
from deploy.kafka import KafkaCluster
from deploy.local import ports


async def measure(options: Options) -> Figures:
    """Dossiers a second, the median of the rounds. Needs Java and Maven (deploy/kafka)."""
    rates = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="hoso-bench-kafka-") as folder:
            cluster = KafkaCluster(1, Path(folder), ports.free_base())
            await cluster.start()
            try:
                with ground(broker=cluster.bootstrap) as place:
                    count = throughput.tens(await throughput.warm_up(place, options.seconds) * options.seconds)
                    rest(place)
                    rates.append(round((await throughput.run(place, count)).rate, 1))
            finally:
                await cluster.stop()
    return {"kafka": statistics.median(rates), "kafka_rounds": rates}


def table(figures: Figures) -> Table:
    shown = Table("", "dossiers/s", "rounds", title="Throughput on Apache Kafka")
    shown.add_row("hoso", f"{figures['kafka']:,.0f}", " ".join(f"{one:,.0f}" for one in figures["kafka_rounds"]))
    return shown


def broken(_: Figures) -> list[str]:
    """There is nothing beside it to compare it with."""
    return []
