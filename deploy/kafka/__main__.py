"""`python -m deploy.kafka up`: runs a real Apache Kafka until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from deploy.kafka.cluster import KafkaCluster
from deploy.kafka.jars import KafkaUnavailable, fetch_jars


def _say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


async def _up(cluster: KafkaCluster, *, fresh: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if fresh:
        await cluster.wipe()
    starting = asyncio.ensure_future(cluster.start())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await starting
            _say(cluster.bootstrap)
            await stopping
    finally:
        starting.cancel()
        stopping.cancel()
        await cluster.stop()


def main() -> int:
    """Return exit code 0 after Ctrl-C, 1 when Kafka is not available."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kafka", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    jars = commands.add_parser(
        "jars", help="chỉ tải các tệp của Kafka / only fetch Kafka's files and print their folder"
    )
    up = commands.add_parser("up", help="chạy Kafka đến khi bấm Ctrl-C / run Kafka until Ctrl-C")
    up.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    up.add_argument("--port", type=int, default=9092, help="broker i listens on port + 2*i, its controller one above")
    up.add_argument("--directory", type=Path, default=Path(".hoso-kafka/cluster"), help="data, kept after Ctrl-C")
    up.add_argument("--fresh", action="store_true", help="xoá dữ liệu cũ trước / delete the old data first")
    for command in (jars, up):
        command.add_argument("--jars", type=Path, default=None, help="folder of the jars (default: .hoso-kafka)")
    arguments = parser.parse_args()
    try:
        if arguments.command == "jars":
            _say(str(fetch_jars(arguments.jars)))
        else:
            cluster = KafkaCluster(arguments.brokers, arguments.directory, arguments.port, jars=arguments.jars)
            asyncio.run(_up(cluster, fresh=arguments.fresh))
    except KafkaUnavailable as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
