"""Growth: throughput, lists, tracking, feed and stages with ten thousand dossiers and with a million.

One stack is filled further between the measurements (`bench.seeding`), so that only the stored data differ.
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
from bench.parts import Figures, Options
from bench.seeding import Seeding, twin
from bench.testbed import SERVICES, Stalled, Testbed, connect, open_testbed
from bench.workload import AGENCIES
from shared.privacy.tracking import tracking_secret

SIZES, SHORT_SIZES = (10_000, 100_000, 1_000_000), (2_000, 10_000)
REQUESTS, SHORT_REQUESTS = 300, 60
"""Number of requests of each kind; a 95th percentile needs some hundreds."""
OWN_CHANGES = 30
"""How often an officer checks the list for their own change."""
LARGEST = 8
"""Number of tables in the report of sizes and dead rows."""
SERVER_SETTINGS = {"max_wal_size": "4GB", "shared_buffers": "512MB", "effective_cache_size": "4GB"}
"""PostgreSQL's settings for a server with a million dossiers; the same at every size."""


async def measure(options: Options) -> Figures:
    """Return the ratios of the largest size to the smallest, and each size's figures."""
    sizes = SHORT_SIZES if options.short else SIZES
    with open_testbed(postgres_settings=SERVER_SETTINGS) as testbed:
        seeding = Seeding(testbed)
        await seeding.work_pattern()
        rows = []
        for size in sizes:
            seeded_s = await seeding.grow(size)
            rows.append(
                {"dossiers": seeding.total, "seeded_s": round(seeded_s), **await _at(testbed, seeding, options)}
            )
        full = await _tables(testbed)
    figures: Figures = {"sizes": rows, "largest_tables": full, "own_change_missed": sum(r["own_missed"] for r in rows)}
    if not options.short:
        figures["throughput_ratio_1m_over_10k"] = round(rows[-1]["throughput"] / rows[0]["throughput"], 3)
        figures["task_list_p95_ms"] = rows[-1]["p95_ms"]["task_list"]
    return figures


async def _at(testbed: Testbed, seeding: Seeding, options: Options) -> Figures:
    """Measure at one size: first the requests to an idle stack, then the load."""
    requests = SHORT_REQUESTS if options.short else REQUESTS
    bytes_each = await _bytes(testbed) / seeding.total
    waits = await asyncio.to_thread(_time_requests, testbed, seeding, requests)
    missed = await asyncio.to_thread(_own_changes, testbed)
    count = round((await throughput.run(testbed, 1_000)).rate * min(options.seconds, 10.0))
    rates = [(await throughput.run(testbed, count)).rate for _ in range(options.rounds)]
    dead, live = await _dead(testbed)
    return {
        "throughput": round(statistics.median(rates), 1),
        "p95_ms": waits,
        "own_missed": missed,
        "bytes_per_dossier": round(bytes_each),
        "dead_rows_share": round(dead / (live + dead), 4),
    }


def table(figures: Figures) -> Table:
    """Return a table with one column per size."""
    sizes = figures["sizes"]
    table = Table("", *(f"{row['dossiers']:,} dossiers" for row in sizes), title="Growth")
    table.add_row("dossiers/s", *(f"{row['throughput']:,.0f}" for row in sizes))
    for name in sizes[0]["p95_ms"]:
        table.add_row(f"{name} p95 ms", *(f"{row['p95_ms'][name]:.1f}" for row in sizes))
    table.add_row("bytes per dossier", *(f"{row['bytes_per_dossier']:,}" for row in sizes))
    table.add_row("dead rows", *(f"{row['dead_rows_share']:.1%}" for row in sizes))
    table.caption = f"an officer's own change was missing from the list {figures['own_change_missed']} times"
    return table


def broken(figures: Figures) -> list[str]:
    """Fails below half the throughput at the larger size, and for any change that its officer cannot see."""
    sentences: list[str] = []
    if figures["sizes"][-1]["throughput"] < 0.5 * figures["sizes"][0]["throughput"]:
        sentences.append("growth: the throughput halves as the databases fill")
    if figures["own_change_missed"]:
        sentences.append("growth: an officer's own change was not in the list")
    return sentences


@dataclass
class Client:
    """One kept-alive connection to one service. `following`: the target of the last answer's `Link`."""

    connection: http.client.HTTPConnection
    token: str
    following: str = ""

    def call(self, path: str, body: Any = None) -> Any:
        """Return the JSON answer. Raises RuntimeError for a status over 299."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)
        self.connection.request("GET" if body is None else "POST", path, content, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        self.following = (answer.getheader("Link") or "").partition("<")[2].partition(">")[0]
        if answer.status > 299:
            raise RuntimeError(f"{path} answered {answer.status}: {text[:300]!r}")
        return json.loads(text)


def _open_client(testbed: Testbed, role: str) -> Client:
    url = urlsplit(testbed.url["workflow"])
    return Client(http.client.HTTPConnection(str(url.hostname), url.port, timeout=30), testbed.tokens[role])


def _time_requests(testbed: Testbed, seeding: Seeding, times: int) -> dict[str, float]:
    """Send each request `times` times, one after the other. Returns the 95th percentiles in milliseconds."""
    chance = random.Random(1)
    assert testbed.stack.environment is not None
    key = testbed.stack.environment.service("workflow", 0, "")["HOSO_SECRET"].encode()
    client = _open_client(testbed, "specialist")

    def agency() -> str:
        return f"H44.B{chance.randrange(AGENCIES):02d}"

    def dossier() -> UUID:
        return twin(chance.choice(seeding.originals), chance.randint(1, seeding.copies))

    def track() -> str:
        dossier_id = dossier()
        return f"/v1/track/{dossier_id}?secret={tracking_secret(key, dossier_id)}"

    paths: dict[str, Callable[[], str]] = {
        "task_list": lambda: f"/v1/tasks?role=specialist&agency={agency()}&limit=100",
        "task_list_all": lambda: "/v1/tasks?limit=100",
        "tracking": track,
        "dossier": lambda: f"/v1/dossiers/{dossier()}",
        "feed": lambda: client.following or "/v1/events?limit=100",
        "stages": lambda: f"/v1/stages?agency={agency()}",
        "stages_all": lambda: "/v1/stages",
    }
    percentiles = {}
    for name, make_path in paths.items():
        waits = []
        for _ in range(times):
            path = make_path()
            started = time.perf_counter()
            client.call(path)
            waits.append(time.perf_counter() - started)
        percentiles[name] = round(statistics.quantiles(waits, n=100, method="inclusive")[94] * 1000, 2)
    return percentiles


def _own_changes(testbed: Testbed) -> int:
    """Start and complete tasks, and read the list after each change. Returns how often the list missed the change."""
    client, missed = _open_client(testbed, "specialist"), 0
    for _ in range(OWN_CHANGES):
        tasks = client.call("/v1/tasks?role=specialist&limit=100")["items"]
        task = next((row for row in tasks if row["state"] == "open" and not row["waiting_for"]), None)
        if task is None:
            raise Stalled("no open task is left for an officer to start")
        path = f"/v1/tasks?role=specialist&agency={task['agency']}&limit=100"
        started = client.call(f"/v1/tasks/{task['task_id']}/start", {"version": task["version"]})
        listed = next((row for row in client.call(path)["items"] if row["task_id"] == task["task_id"]), None)
        missed += listed is None or listed["state"] != "started" or listed["version"] != started["version"]
        outcome = next(row["code"] for row in task["outcomes"] if row["forward"])
        client.call(f"/v1/tasks/{task['task_id']}/complete", {"version": started["version"], "outcome": outcome})
        missed += any(row["task_id"] == task["task_id"] for row in client.call(path)["items"])
    return missed


async def _bytes(testbed: Testbed) -> int:
    """Return the size of the four databases with their indexes."""
    total = 0
    for name in SERVICES:
        async with connect(testbed.dsn[name]) as connection:
            total += await connection.fetchval(
                "select sum(pg_total_relation_size(oid)) from pg_class where relkind = 'r' and relname <> 'twins'"
                " and relnamespace = 'public'::regnamespace"
            )
    return total


STATISTICS = """
  select relname::text as name, n_dead_tup as dead, n_live_tup as live, pg_total_relation_size(relid) as bytes
    from pg_stat_user_tables where relname <> 'twins' order by bytes desc
"""


async def _dead(testbed: Testbed) -> tuple[int, int]:
    """Return the dead and live rows of all tables, as PostgreSQL counts them."""
    dead = live = 0
    for name in SERVICES:
        async with connect(testbed.dsn[name]) as connection:
            await connection.execute("select pg_stat_clear_snapshot()")
            for row in await connection.fetch(STATISTICS):
                dead, live = dead + row["dead"], live + row["live"]
    return dead, live


async def _tables(testbed: Testbed) -> list[Figures]:
    """Return the largest tables of all services with their indexes, after the last load."""
    tables: list[Figures] = []
    for name in SERVICES:
        async with connect(testbed.dsn[name]) as connection:
            for row in await connection.fetch(STATISTICS):
                share = row["dead"] / max(row["live"] + row["dead"], 1)
                megabytes = round(row["bytes"] / 2**20, 1)
                tables.append({"table": f"{name}.{row['name']}", "mb": megabytes, "dead_rows_share": round(share, 4)})
    return sorted(tables, key=lambda row: -row["mb"])[:LARGEST]
