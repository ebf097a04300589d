"""What a full database costs: throughput, lists, tracking, feed and stages at ten thousand dossiers and at a million.

One stack is filled further between the measurements (`bench.seeding`), so that nothing but what is stored differs.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from rich.table import Table

from bench import throughput
from bench.ground import SERVICES, Ground, Stalled, ground, one
from bench.parts import Figures, Options
from bench.seeding import Seeding, twin
from bench.workload import AGENCIES
from shared.privacy.tracking import tracking_secret

SIZES, SHORT_SIZES = (10_000, 100_000, 1_000_000), (2_000, 10_000)
ASKED, SHORT_ASKED = 300, 60
"""How often each question is asked; its 95th percentile needs some hundreds."""
OWN = 30
"""How many times an officer looks for their own change."""
LARGEST = 8
"""Tables whose size and dead rows are told."""
ROOM = {"max_wal_size": "4GB", "shared_buffers": "512MB", "effective_cache_size": "4GB"}
"""PostgreSQL as a server with a million dossiers would be given it; the same at every size."""


async def measure(options: Options) -> Figures:
    """Ratios of the largest size to the smallest, and each size's own figures."""
    sizes = SHORT_SIZES if options.short else SIZES
    with ground(postgres_settings=ROOM) as place:
        seeding = Seeding(place)
        await seeding.work_pattern()
        rows = []
        for size in sizes:
            seeded_s = await seeding.grow(size)
            rows.append({"dossiers": seeding.total, "seeded_s": round(seeded_s), **await _at(place, seeding, options)})
        full = await _tables(place)
    found: Figures = {"sizes": rows, "largest_tables": full, "own_change_missed": sum(r["own_missed"] for r in rows)}
    if not options.short:
        found["throughput_ratio_1m_over_10k"] = round(rows[-1]["throughput"] / rows[0]["throughput"], 3)
        found["task_list_p95_ms"] = rows[-1]["p95_ms"]["task_list"]
    return found


async def _at(place: Ground, seeding: Seeding, options: Options) -> Figures:
    """All that is measured at one size: first the questions, of a stack at rest, then the load."""
    asked = SHORT_ASKED if options.short else ASKED
    bytes_each = await _bytes(place) / seeding.total
    waits = await asyncio.to_thread(_ask_everything, place, seeding, asked)
    missed = await asyncio.to_thread(_own_changes, place)
    count = round((await throughput.run(place, 1_000)).rate * min(options.seconds, 10.0))
    rates = [(await throughput.run(place, count)).rate for _ in range(options.rounds)]
    dead, live = await _dead(place)
    return {
        "throughput": round(statistics.median(rates), 1),
        "p95_ms": waits,
        "own_missed": missed,
        "bytes_per_dossier": round(bytes_each),
        "dead_rows_share": round(dead / (live + dead), 4),
    }


def table(figures: Figures) -> Table:
    """One row a size."""
    shown = Table("dossiers", "dossiers/s", title="Growth")
    names = list(figures["sizes"][0]["p95_ms"])
    for name in names:
        shown.add_column(f"{name} p95 ms")
    shown.add_column("bytes a dossier")
    shown.add_column("dead rows")
    for row in figures["sizes"]:
        waits = [f"{row['p95_ms'][name]:.1f}" for name in names]
        dead = f"{row['dead_rows_share']:.1%}"
        rate = f"{row['throughput']:,.0f}"
        shown.add_row(f"{row['dossiers']:,}", rate, *waits, f"{row['bytes_per_dossier']:,}", dead)
    shown.caption = f"an officer's own change was missing from the list {figures['own_change_missed']} times"
    return shown


def broken(figures: Figures) -> list[str]:
    """By a wide margin: half the throughput at the larger size. With none: a change that its officer cannot see."""
    found = []
    if figures["sizes"][-1]["throughput"] < 0.5 * figures["sizes"][0]["throughput"]:
        found.append("growth: throughput halves as the databases fill")
    if figures["own_change_missed"]:
        found.append("growth: an officer's own change was not in the list")
    return found


@dataclass
class Asker:
    """One kept connection to one service. `following` is where the last answer's `Link` leads."""

    connection: http.client.HTTPConnection
    token: str
    following: str = ""

    def ask(self, path: str, body: Any = None) -> Any:
        """The JSON answer. Raises RuntimeError for any status over 299."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body)
        self.connection.request("GET" if body is None else "POST", path, sent, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        self.following = (answer.getheader("Link") or "").partition("<")[2].partition(">")[0]
        if answer.status > 299:
            raise RuntimeError(f"{path} answered {answer.status}: {text[:300]!r}")
        return json.loads(text)


def _asker(place: Ground, role: str) -> Asker:
    where = urlsplit(place.url["workflow"])
    return Asker(http.client.HTTPConnection(str(where.hostname), where.port, timeout=30), place.tokens[role])


def _ask_everything(place: Ground, seeding: Seeding, times: int) -> dict[str, float]:
    """The 95th percentile of the waits, in milliseconds, of each question, asked one after the other."""
    chosen = random.Random(1)
    assert place.stack.environment is not None
    key = place.stack.environment.service("workflow", 0, "")["HOSO_SECRET"].encode()
    asker = _asker(place, "specialist")

    def agency() -> str:
        return f"H44.B{chosen.randrange(AGENCIES):02d}"

    def dossier() -> UUID:
        return twin(chosen.choice(seeding.originals), chosen.randint(1, seeding.copies))

    def track() -> str:
        dossier_id = dossier()
        return f"/v1/track/{dossier_id}?secret={tracking_secret(key, dossier_id)}"

    questions: dict[str, Callable[[], str]] = {
        "task_list": lambda: f"/v1/tasks?role=specialist&agency={agency()}&limit=100",
        "task_list_all": lambda: "/v1/tasks?limit=100",
        "tracking": track,
        "dossier": lambda: f"/v1/dossiers/{dossier()}",
        "feed": lambda: asker.following or "/v1/events?limit=100",
        "stages": lambda: f"/v1/stages?agency={agency()}",
        "stages_all": lambda: "/v1/stages",
    }
    found = {}
    for name, question in questions.items():
        waits = []
        for _ in range(times):
            path = question()
            began = time.perf_counter()
            asker.ask(path)
            waits.append(time.perf_counter() - began)
        found[name] = round(statistics.quantiles(waits, n=100, method="inclusive")[94] * 1000, 2)
    return found


def _own_changes(place: Ground) -> int:
    """An officer takes a task up, looks at the list, ends it, looks again: how often was it not as they left it."""
    asker, missed = _asker(place, "specialist"), 0
    for _ in range(OWN):
        front = asker.ask("/v1/tasks?role=specialist&limit=100")["items"]
        task = next((row for row in front if row["state"] == "open" and not row["waiting_for"]), None)
        if task is None:
            raise Stalled("there is no open task that an officer could take up")
        path = f"/v1/tasks?role=specialist&agency={task['agency']}&limit=100"
        started = asker.ask(f"/v1/tasks/{task['task_id']}/start", {"version": task["version"]})
        seen = next((row for row in asker.ask(path)["items"] if row["task_id"] == task["task_id"]), None)
        missed += seen is None or seen["state"] != "started" or seen["version"] != started["version"]
        outcome = next(row["code"] for row in task["outcomes"] if row["forward"])
        asker.ask(f"/v1/tasks/{task['task_id']}/complete", {"version": started["version"], "outcome": outcome})
        missed += any(row["task_id"] == task["task_id"] for row in asker.ask(path)["items"])
    return missed


async def _bytes(place: Ground) -> int:
    """Of the four databases, with their indexes."""
    total = 0
    for name in SERVICES:
        async with one(place.dsn[name]) as connection:
            total += await connection.fetchval(
                "select sum(pg_total_relation_size(oid)) from pg_class where relkind = 'r' and relname <> 'twins'"
                " and relnamespace = 'public'::regnamespace"
            )
    return total


STATISTICS = """
  select relname::text as name, n_dead_tup as dead, n_live_tup as live, pg_total_relation_size(relid) as bytes
    from pg_stat_user_tables where relname <> 'twins' order by bytes desc
"""


async def _dead(place: Ground) -> tuple[int, int]:
    """Dead and live rows of all tables, as PostgreSQL counts them."""
    dead = live = 0
    for name in SERVICES:
        async with one(place.dsn[name]) as connection:
            await connection.execute("select pg_stat_clear_snapshot()")
            for row in await connection.fetch(STATISTICS):
                dead, live = dead + row["dead"], live + row["live"]
    return dead, live


async def _tables(place: Ground) -> list[Figures]:
    """The largest tables of all services, with their indexes, after the last load."""
    found: list[Figures] = []
    for name in SERVICES:
        async with one(place.dsn[name]) as connection:
            for row in await connection.fetch(STATISTICS):
                share = row["dead"] / max(row["live"] + row["dead"], 1)
                megabytes = round(row["bytes"] / 2**20, 1)
                found.append({"table": f"{name}.{row['name']}", "mb": megabytes, "dead_rows_share": round(share, 4)})
    return sorted(found, key=lambda row: -row["mb"])[:LARGEST]
