"""One run of the demo's week: people at work, the registry slowed down on Wednesday, everything watched."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx2

from deploy.demo import officers
from deploy.demo.centre import Centre
from deploy.demo.week import WEDNESDAY, Week, arrivals
from deploy.verify import bottleneck
from shared.office import OfficeClock

HEALTHY = {
    "latency_p50_s": 0.04,
    "latency_p95_s": 0.12,
    "capacity_per_s": 200.0,
    "lost_answer_rate": 0.0,
    "error_rate": 0.0,
    "duplicate_rate": 0.0,
}
SLOW = {**HEALTHY, "latency_p50_s": 8.0, "latency_p95_s": 20.0, "capacity_per_s": 0.6, "lost_answer_rate": 0.2}
"""Two hundred times slower (wall time), and every fifth answer is lost."""
TARGETS = {"relay": 3600.0, "notify": 7200.0}
"""At this speed a machine's 60 s would be 17 ms: relay and notify are measured against one and two wall seconds."""


@dataclass
class Watched:
    """What was seen while the week went by."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    """{office, verdict, scraped}: what workflow said, and what the metrics alone say, at one moment."""
    worst: dict[str, Any] | None = None
    agreed: int = 0
    differed: int = 0
    pss_mb: float = 0.0


async def play(
    endpoints: Mapping[str, Any],
    clock: OfficeClock,
    week: Week,
    *,
    seed: int,
    communes: int,
    watched: Watched,
    watch: Any,
) -> tuple[int, int, dict[str, int]]:
    """Play the week. Returns (dossiers filed, dossiers meant to be filed, refused calls by code)."""
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=100)
    async with httpx2.AsyncClient(limits=limits) as client:
        centre = Centre(endpoints, clock, client)
        plan = arrivals(seed, communes, week)
        _, listed = await centre.call("workflow", "GET", "/v1/procedures?limit=1000", "ops")
        examples = {procedure["code"]: procedure["example"] for procedure in listed["items"]}
        filed: list[str] = []
        people = [asyncio.create_task(centre.follow_feed()), asyncio.create_task(_registry(centre, week))]
        people.append(asyncio.create_task(_look(centre, watched, watch, filed)))
        for commune in range(communes):
            people += [
                asyncio.create_task(officers.officer(centre, role, f"{role}-{number}", commune))
                for role, count in officers.STAFF.items()
                for number in range(count)
            ]
            people.append(asyncio.create_task(officers.signatory(centre, commune)))
        try:
            await officers.file_arrivals(centre, plan, examples, filed)
            await centre.until(week.ends_at)
            for task in people:
                if task.done() and not task.cancelled() and (error := task.exception()):
                    raise error
        finally:
            for task in people:
                task.cancel()
            await asyncio.gather(*people, return_exceptions=True)
        return len(filed), len(plan), centre.refused


async def _registry(centre: Centre, week: Week) -> None:
    """Healthy, then slow and losing answers for one day, then healthy."""
    slow_from, slow_until = week.day(WEDNESDAY)
    await _control(centre, HEALTHY)
    await centre.until(slow_from)
    await _control(centre, SLOW)
    await centre.until(slow_until)
    await _control(centre, HEALTHY)


async def _control(centre: Centre, settings: dict[str, float]) -> None:
    answer = await centre.client.put(centre.endpoints["registry"] + "/control", json=settings, timeout=10)
    answer.raise_for_status()


async def _look(centre: Centre, watched: Watched, watch: Any, filed: list[str]) -> None:
    """Every half second: the verdict, the same from the metrics alone, and memory; keep the worst moment."""
    while True:
        began = time.monotonic()
        status, verdict = await centre.call("workflow", "GET", "/v1/stages", "ops")
        pages = await bottleneck.scrape(centre.endpoints)
        scraped = bottleneck.find_bottleneck(pages.values())
        if status == 200:
            _keep(watched, centre.clock.now(), verdict, scraped)
            watch(centre.clock.now(), verdict, len(filed))
        watched.pss_mb = max(watched.pss_mb, pss_mb(centre.endpoints["pids"]))
        await asyncio.sleep(max(0.5 - (time.monotonic() - began), 0.05))


def _keep(watched: Watched, office: datetime, verdict: dict[str, Any], scraped: Any) -> None:
    said = verdict["bottleneck"]["stage"] if verdict["bottleneck"] else None
    counted = scraped.stage if scraped else None
    if said == counted:
        watched.agreed += 1
    else:
        watched.differed += 1
    score = max((row["score"] for row in verdict["stages"]), default=0.0)
    row = {"office": office, "score": score, "verdict": verdict, "scraped": counted}
    if said is not None and (watched.worst is None or score > watched.worst["score"]):
        watched.worst = row
    watched.samples.append({"office": office, "said": said, "scraped": counted, "score": score})


def pss_mb(pids: Mapping[str, int]) -> float:
    """Proportional memory of all processes but the broker, with what they started. MB; 0 where it cannot be read."""
    total = 0
    for name, pid in pids.items():
        if name == "broker":
            continue
        for process in [pid, *_children(pid)]:
            with contextlib.suppress(OSError), open(f"/proc/{process}/smaps_rollup", encoding="ascii") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total / 1024


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for child in file.read().split():
            found += [int(child), *_children(int(child))]
    return found
