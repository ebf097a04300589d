"""The independent proof: finds what was lost, repeated or out of order.

It imports nothing of the services and nothing of `shared`, so that a mistake there cannot hide itself here. It reads
the `proof` schemas of the four databases, the broker through its own consumer, and the registry simulator's
statistics.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import httpx2

from deploy.verify.databases import Unreadable, read_databases
from deploy.verify.notebook import Notebook
from deploy.verify.report import Report, exit_code
from deploy.verify.stream import Stream, read_stream
from deploy.verify.zeros import compute, is_settled, prepare

__all__ = ["Report", "exit_code", "run"]

STATS_SECONDS = 10.0
UNANSWERED = (httpx2.HTTPError, ValueError, KeyError, TypeError)
"""What `_statistics` can raise: the simulator does not answer, or its answer has another shape."""


async def run(
    endpoints: dict[str, Any],
    *,
    kafka_seconds: float | None = None,
    settle_seconds: float = 30.0,
    examples: int = 20,
) -> Report:
    """Prove what the stack at `endpoints` (the content of `endpoints.json`) did.

    Reads the databases until nothing moves and nothing is missing, at most `settle_seconds`; then the broker, at most
    `kafka_seconds` (None: as long as records come). When something cannot be reached it does not raise: the report
    lists the reason in `troubles` and is not `complete`. `examples`: how many findings of each figure it lists.
    """
    started = time.monotonic()
    report = Report()
    with Notebook() as notebook:
        try:
            await _read_until_settled(notebook, report, endpoints, started + settle_seconds)
        except Unreadable as error:
            report.troubles.append(str(error))
        else:
            await _read_broker(notebook, report, endpoints.get("kafka", ""), kafka_seconds)
            report.zeros = compute(
                notebook,
                stream_complete=report.stream.complete,
                trimmed=report.stream.trimmed,
                limit=examples,
            )
    await _ask_registry(report, endpoints.get("registry", ""))
    report.seconds = time.monotonic() - started
    return report


async def _read_until_settled(notebook: Notebook, report: Report, endpoints: dict[str, Any], deadline: float) -> None:
    while True:
        began = time.monotonic()
        notebook.empty()
        report.counts = await read_databases(notebook, endpoints.get("databases", {}))
        if url := endpoints.get("registry", ""):
            # `_ask_registry` reports a simulator that does not answer.
            with contextlib.suppress(*UNANSWERED):
                notebook.write("registry", [(int((await _statistics(url))["in_flight"]),)])
        prepare(notebook)
        pause = max(0.5, time.monotonic() - began)
        if is_settled(notebook) or time.monotonic() + pause > deadline:
            return
        await asyncio.sleep(pause)


async def _read_broker(notebook: Notebook, report: Report, bootstrap: str, seconds: float | None) -> None:
    if not bootstrap:
        report.troubles.append("Không có địa chỉ Kafka. / No Kafka address is given.")
        return
    report.stream = await read_stream(notebook, bootstrap, seconds=seconds)
    if unread := _list_unread(notebook, report.stream):
        report.stream.complete = False
        report.stream.trouble = f"the broker does not have {', '.join(unread)}, where something was sent"
    if not report.stream.complete:
        report.troubles.append(f"Chưa đọc hết Kafka. / {report.stream.trouble}")
    report.counts["kafka"] = dict(sorted(report.stream.records.items())) | {
        "heartbeats": report.stream.heartbeats,
        "strangers": report.stream.strangers,
    }


def _list_unread(notebook: Notebook, stream: Stream) -> list[str]:
    """Topics with sent events that the broker does not have: it is another broker, or it was just wiped."""
    if not stream.clusters:
        return []
    sent = notebook.rows("select distinct topic from events where sent_age is not null order by 1")
    return [topic for (topic,) in sent if topic not in stream.topics]


async def _ask_registry(report: Report, url: str) -> None:
    if not url:
        return
    report.registry = {}
    try:
        report.registry = await _statistics(url)
        report.numbers_issued_twice = int(report.registry["numbers_issued_twice"])
    except UNANSWERED as error:
        report.troubles.append(
            f"Không hỏi được thống kê của kho định danh mô phỏng. / The registry's statistics do not answer: {error!r}"
        )


async def _statistics(url: str) -> dict[str, Any]:
    async with httpx2.AsyncClient(timeout=STATS_SECONDS, trust_env=False) as client:
        answer = await client.get(f"{url.rstrip('/')}/control/stats")
        answer.raise_for_status()
        return dict(answer.json())
