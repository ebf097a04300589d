"""How many dossiers intake takes in a second, beside a bare route and beside one transaction for every request.

Only the process measured, PostgreSQL, the broker and the client run: the services behind intake are stopped, its relay
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

from bench.caller import Answered, Load, load
from bench.ground import SERVICES, Ground, Stalled, ground
from bench.parts import Figures, Options
from bench.workload import body_of
from deploy.local import call, ports
from deploy.local.program import Program
from deploy.local.trouble import Trouble

CONNECTIONS = (1, 16, 64)
MOST = CONNECTIONS[-1]
BODIES = 200
"""Prepared bodies, sent in turn; every request has an idempotency key of its own."""
CONTENDERS = ("ours", "bare_route", "one_transaction_each")


async def measure(options: Options) -> Figures:
    """Requests/s of each at 64 connections, and the whole table: medians of interleaved rounds."""
    window_s = 2.0 if options.short else 4.0
    seen: dict[tuple[str, int], list[Answered]] = {}
    with ground() as place:
        texts = (json.dumps(body_of(place.examples, number), ensure_ascii=False) for number in range(1, BODIES + 1))
        bodies = tuple(texts)
        for name in SERVICES:
            place.stack.take_down(name)
        for _ in range(options.rounds):
            for contender in CONTENDERS:
                with _serving(place, contender) as port:
                    for connections in CONNECTIONS:
                        asked = Load(port, "/v1/dossiers", place.tokens["counter"], bodies, connections, 1.0, window_s)
                        seen.setdefault((contender, connections), []).append(await load(asked))
    rows = [_row(contender, connections, found) for (contender, connections), found in seen.items()]
    return {**{row["contender"]: row["per_s"] for row in rows if row["connections"] == MOST}, "table": rows}


def table(figures: Figures) -> Table:
    """Requests a second and waits by connections, and how ours compares."""
    shown = Table("", "connections", "requests/s", "p50 ms", "p99 ms", "ours is so many times it", title="Intake")
    ours = {row["connections"]: row["per_s"] for row in figures["table"] if row["contender"] == "ours"}
    for row in figures["table"]:
        ratio = f"{ours[row['connections']] / row['per_s']:.2f}"
        shown.add_row(
            row["contender"],
            str(row["connections"]),
            f"{row['per_s']:,.0f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            ratio,
        )
    return shown


def broken(figures: Figures) -> list[str]:
    """By a wide margin: a quarter of the bare route, and group commit that gains nothing."""
    found = []
    if figures["ours"] < 0.25 * figures["bare_route"]:
        found.append("intake: ours is under a quarter of a bare route")
    if figures["ours"] < figures["one_transaction_each"]:
        found.append("intake: group commit is slower than one transaction for every request")
    return found


def _row(contender: str, connections: int, found: list[Answered]) -> Figures:
    refused = sum(one.refused for one in found)
    if refused:
        raise RuntimeError(f"{contender} refused {refused} submissions: nothing of it counts")
    middle = {name: statistics.median(asdict(one)[name] for one in found) for name in asdict(found[0])}
    del middle["refused"]
    return {"contender": contender, "connections": connections, **middle}


@contextmanager
def _serving(place: Ground, contender: str) -> Iterator[int]:
    """Only this contender runs inside; its port."""
    module = {
        "ours": ["services.intake.main"],
        "bare_route": ["bench.intake_rivals", "bare"],
        "one_transaction_each": ["bench.intake_rivals", "one-each"],
    }[contender]
    assert place.stack.environment is not None
    port = ports.free_port()
    env = place.stack.environment.service("intake", port, place.dsn["intake"])
    root = Path(__file__).parents[1]
    program = Program(contender, [sys.executable, "-m", *module], port, env, root, place.stack.log(contender))
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
            said = call.call(f"http://127.0.0.1:{port}", "/readyz", timeout=3.0)
            if said["broker"] == "connected" and said["procedures"]:
                return
        except call.Refused as refused:
            if refused.status == 404:  # the bare route serves and has no such path
                return
        except Trouble:
            pass
        time.sleep(0.05)
    raise Stalled("what was to be measured did not become ready")
