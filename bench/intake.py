"""How many dossiers intake takes in a second, beside a bare route and beside one transaction for every request.

`python -m bench.intake` prints the table. Only the process measured, PostgreSQL, the broker and the client run: the
services behind intake are stopped, its relay is not.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.caller import Answered, Load, load
from bench.ground import Ground, Stalled, ground
from bench.workload import body_of
from deploy.local import call, ports
from deploy.local.program import Program
from deploy.local.trouble import Trouble

CONNECTIONS = (1, 16, 64)
ROUNDS = 3
BODIES = 200
"""Prepared bodies, sent in turn; every request has an idempotency key of its own."""
CONTENDERS = ("ours", "bare_route", "one_transaction_each")


async def measure(place: Ground, rounds: int = ROUNDS, window_s: float = 4.0) -> dict[str, Any]:
    """Requests/s of each at 64 connections, and the whole table: medians of interleaved rounds."""
    bodies = tuple(json.dumps(body_of(place.examples, number), ensure_ascii=False) for number in range(1, BODIES + 1))
    seen: dict[tuple[str, int], list[Answered]] = {}
    for name in ("workflow", "idlookup", "notify"):
        place.stack.take_down(name)
    place.stack.take_down("intake")
    for _ in range(rounds):
        for contender in CONTENDERS:
            with _serving(place, contender) as port:
                for connections in CONNECTIONS:
                    asked = Load(port, "/v1/dossiers", place.tokens["counter"], bodies, connections, 1.0, window_s)
                    seen.setdefault((contender, connections), []).append(await load(asked))
    table = [_row(contender, connections, found) for (contender, connections), found in seen.items()]
    most = {row["contender"]: row["per_s"] for row in table if row["connections"] == CONNECTIONS[-1]}
    return {**most, "table": table}


def _row(contender: str, connections: int, found: list[Answered]) -> dict[str, Any]:
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
    assert place.stack.surroundings is not None
    port = ports.free_port()
    env = place.stack.surroundings.service("intake", port, place.dsn["intake"])
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


def main() -> None:
    with ground() as place:
        print(json.dumps(asyncio.run(measure(place)), indent=1))


if __name__ == "__main__":
    main()
