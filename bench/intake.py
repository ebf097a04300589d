"""Intake: accepted submissions per second, beside a bare route and beside one transaction per request.

Only the measured process, PostgreSQL, the broker and the client run. The services behind intake are stopped; its relay
is not.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from bench.caller import Load, LoadResult, load
from bench.parts import Figures, Options
from bench.testbed import SERVICES, Stalled, Testbed, open_testbed
from bench.workload import body_of
from deploy.local import call, ports
from deploy.local.program import Program
from deploy.local.trouble import Trouble

CONNECTIONS = (1, 16, 64)
MAX_CONNECTIONS = CONNECTIONS[-1]
BODIES = 200
"""Number of prepared bodies, sent in turn. Every request has its own idempotency key."""
CONTENDERS = ("ours", "bare_route", "one_transaction_each")


async def measure(options: Options) -> Figures:
    """Return the requests/s of each contender at 64 connections, and the whole table: medians of interleaved rounds."""
    window_s = 2.0 if options.short else 4.0
    results: dict[tuple[str, int], list[LoadResult]] = {}
    with open_testbed() as testbed:
        texts = (json.dumps(body_of(testbed.examples, number), ensure_ascii=False) for number in range(1, BODIES + 1))
        bodies = tuple(texts)
        for name in SERVICES:
            testbed.stack.take_down(name)
        for _ in range(options.rounds):
            for contender in CONTENDERS:
                with _serving(testbed, contender) as port:
                    for connections in CONNECTIONS:
                        plan = Load(port, "/v1/dossiers", testbed.tokens["counter"], bodies, connections, 1.0, window_s)
                        results.setdefault((contender, connections), []).append(await load(plan))
    rows = [_row(contender, connections, rounds) for (contender, connections), rounds in results.items()]
    return {**{row["contender"]: row["per_s"] for row in rows if row["connections"] == MAX_CONNECTIONS}, "table": rows}


def table(figures: Figures) -> Table:
    """Return requests per second and waits by number of connections, and the ratio of hoso to each contender."""
    table = Table("", "connections", "requests/s", "p50 ms", "p99 ms", "hoso : it", title="Intake")
    ours = {row["connections"]: row["per_s"] for row in figures["table"] if row["contender"] == "ours"}
    for row in figures["table"]:
        ratio = f"{ours[row['connections']] / row['per_s']:.2f}"
        table.add_row(
            row["contender"].replace("_", " "),
            str(row["connections"]),
            f"{row['per_s']:,.0f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            ratio,
        )
    return table


def broken(figures: Figures) -> list[str]:
    """Fails below a quarter of the bare route, and when the group commit gains nothing."""
    sentences = []
    if figures["ours"] < 0.25 * figures["bare_route"]:
        sentences.append("intake: hoso is under a quarter of a bare route")
    if figures["ours"] < figures["one_transaction_each"]:
        sentences.append("intake: group commit is slower than one transaction per request")
    return sentences


def _row(contender: str, connections: int, rounds: list[LoadResult]) -> Figures:
    refused = sum(result.refused for result in rounds)
    if refused:
        raise RuntimeError(f"{contender} refused {refused} submissions: the measurement does not count")
    medians = {name: statistics.median(asdict(result)[name] for result in rounds) for name in asdict(rounds[0])}
    del medians["refused"]
    return {"contender": contender, "connections": connections, **medians}


@contextmanager
def _serving(testbed: Testbed, contender: str) -> Iterator[int]:
    """Run only this contender inside the block. Yields its port."""
    module = {
        "ours": ["services.intake.main"],
        "bare_route": ["bench.intake_rivals", "bare"],
        "one_transaction_each": ["bench.intake_rivals", "one-each"],
    }[contender]
    assert testbed.stack.environment is not None
    port = ports.free_port()
    env = testbed.stack.environment.service("intake", port, testbed.dsn["intake"])
    root = Path(__file__).parents[1]
    program = Program(contender, [sys.executable, "-m", *module], port, env, root, testbed.stack.log(contender))
    program.start()
    try:
        _wait_ready(port)
        yield port
    finally:
        program.stop()


def _wait_ready(port: int, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            answer = call.call(f"http://127.0.0.1:{port}", "/readyz", timeout=3.0)
            if answer["broker"] == "connected" and answer["procedures"]:
                return
        except call.Refused as refused:
            if refused.status == 404:  # the bare route is ready; it has no such path
                return
        except Trouble:
            pass
        time.sleep(0.05)
    raise Stalled("the measured process did not become ready")
