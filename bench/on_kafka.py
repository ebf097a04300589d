"""hoso's throughput on a real Apache Kafka, one broker on this machine, instead of the embedded one."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from rich.table import Table

from bench import throughput
from bench.parts import Figures, Options
from bench.side_by_side import checkpoint
from bench.testbed import open_testbed
from deploy.kafka import KafkaCluster
from deploy.local import ports


async def measure(options: Options) -> Figures:
    """Return dossiers per second, the median of the rounds. Needs Java and Maven (deploy/kafka)."""
    rates = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="hoso-bench-kafka-") as folder:
            cluster = KafkaCluster(1, Path(folder), ports.free_base())
            await cluster.start()
            try:
                with open_testbed(broker=cluster.bootstrap) as testbed:
                    count = throughput.tens(await throughput.warm_up(testbed, options.seconds) * options.seconds)
                    checkpoint(testbed)
                    rates.append(round((await throughput.run(testbed, count)).rate, 1))
            finally:
                await cluster.stop()
    return {"kafka": statistics.median(rates), "kafka_rounds": rates}


def table(figures: Figures) -> Table:
    table = Table("", "dossiers/s", "rounds", title="Throughput on Apache Kafka")
    table.add_row("hoso", f"{figures['kafka']:,.0f}", " ".join(f"{rate:,.0f}" for rate in figures["kafka_rounds"]))
    return table


def broken(_: Figures) -> list[str]:
    """Never fails: this part has nothing to compare with."""
    return []
