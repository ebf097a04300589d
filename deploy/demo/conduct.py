"""Plays the demo's week: officers at work, the registry slow on Wednesday, verdicts and memory recorded."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx2

from deploy.demo import officers
from deploy.demo.centre import Centre
from deploy.demo.machine import MachineProbe
from deploy.demo.week import WEDNESDAY, Week, arrivals
from deploy.verify import bottleneck
from shared.clock import OfficeClock

HEALTHY = {
    "latency_p50_s": 0.04,
    "latency_p95_s": 0.12,
    "capacity_per_s": 200.0,
    "lost_answer_rate": 0.0,
    "error_rate": 0.0,
    "duplicate_rate": 0.0,
}
REFERENCE_SPEED = 3000.0


def slow_registry(speed: float) -> dict[str, float]:
    """The slow day's registry: half of its answers take over 6 h 40 min of office time, every fifth answer is lost.

    The same in office time at every speed: latencies and capacity count wall seconds.
    """
    scale = REFERENCE_SPEED / speed
    slow = {"latency_p50_s": 8.0 * scale, "latency_p95_s": 20.0 * scale, "capacity_per_s": 0.6 / scale}
    return {**HEALTHY, **slow, "lost_answer_rate": 0.2}


def targets(speed: float) -> dict[str, float]:
    """Targets of the machine stages whose usual 60 s would be 20 ms of wall time: 1.2 and 2.4 wall seconds instead."""
    return {"relay": 1.2 * speed, "notify": 2.4 * speed}


AGREEING = 0.9
END_LOOKS = 6


@dataclass(frozen=True, slots=True)
class Look:
    """Workflow's verdict, and the bottleneck computed from the metrics alone, at one office time."""

    office: datetime
    verdict: dict[str, Any]
    scraped: str | None

    @property
    def named(self) -> str | None:
        return stage_named_by(self.verdict)

    @property
    def score(self) -> float:
        return max((row["score"] for row in self.verdict["stages"]), default=0.0)


@dataclass
class Watched:
    """What was recorded during the week."""

    worst: Look | None = None
    agreed: int = 0
    differed: int = 0
    """Both count settled looks: workflow named the same stage, or none, in the looks before and after."""
    agreed_at_end: bool = False
    pss_mb: float = 0.0
    probe: MachineProbe = field(default_factory=MachineProbe)
    _latest: list[Look] = field(default_factory=list)

    def keep(self, look: Look) -> None:
        """Add a look and judge the one before it if it is settled: one verdict may see a change before the other."""
        self._latest = [*self._latest[-2:], look]
        if len(self._latest) < 3 or len({one.named for one in self._latest}) > 1:
            return
        settled = self._latest[1]
        self.agreed += settled.named == settled.scraped
        self.differed += settled.named != settled.scraped
        if settled.named is not None and (self.worst is None or settled.score > self.worst.score):
            self.worst = settled

    @property
    def agree(self) -> bool:
        """Whether the two verdicts agree: at the end, when nothing moves, and in nine of ten settled looks before.

        Not in all of them: workflow answers from its tables, and the scraped figures may be one refresh old, which is
        half a wall second.
        """
        return self.agreed_at_end and self.agreed >= AGREEING * (self.agreed + self.differed)


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
    """Play the week. Returns (dossiers filed, dossiers planned, refused calls by problem code)."""
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=100)
    async with httpx2.AsyncClient(limits=limits) as client:
        centre = Centre(endpoints, clock, client)
        plan = arrivals(seed, communes, week)
        _, listed = await centre.call("workflow", "GET", "/v1/procedures?limit=1000", "ops")
        examples = {procedure["code"]: procedure["example"] for procedure in listed["items"]}
        filed: list[str] = []
        people = [asyncio.create_task(centre.follow_feed()), asyncio.create_task(_registry(centre, week))]
        people.append(asyncio.create_task(watched.probe.run()))
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
    """Set the registry: slow and losing answers on Wednesday, healthy before and after."""
    slow_from, slow_until = week.day(WEDNESDAY)
    await _control(centre, HEALTHY)
    await centre.until(slow_from)
    await _control(centre, slow_registry(centre.clock.speed))
    await centre.until(slow_until)
    await _control(centre, HEALTHY)


async def _control(centre: Centre, settings: dict[str, float]) -> None:
    answer = await centre.client.put(centre.endpoints["registry"] + "/control", json=settings, timeout=10)
    answer.raise_for_status()


async def _look(centre: Centre, watched: Watched, watch: Any, filed: list[str]) -> None:
    """Record both verdicts every half second, and the memory every two seconds."""
    for number in itertools.count():
        began = time.monotonic()
        if (seen := await _both(centre)) is not None:
            watched.keep(seen)
            watch(seen.office, seen.verdict, len(filed))
        if number % 4 == 0:
            watched.pss_mb = max(watched.pss_mb, await asyncio.to_thread(pss_mb, centre.endpoints["pids"]))
        await asyncio.sleep(max(0.5 - (time.monotonic() - began), 0.05))


async def look_at_the_end(endpoints: Mapping[str, Any], clock: OfficeClock, watched: Watched) -> None:
    """Record whether the two verdicts agree now that nothing moves. A running refresh gets time to end."""
    async with httpx2.AsyncClient() as client:
        for _ in range(END_LOOKS):
            seen = await _both(Centre(endpoints, clock, client))
            watched.agreed_at_end = seen is not None and seen.named == seen.scraped
            if watched.agreed_at_end:
                return
            await asyncio.sleep(0.5)


async def _both(centre: Centre) -> Look | None:
    """None when workflow does not answer."""
    status, verdict = await centre.call("workflow", "GET", "/v1/stages", "ops")
    pages = await bottleneck.scrape(centre.endpoints, centre.client)
    scraped = await asyncio.to_thread(bottleneck.find_bottleneck, pages.values())
    return Look(centre.clock.now(), verdict, scraped.stage if scraped else None) if status == 200 else None


def stage_named_by(verdict: Mapping[str, Any]) -> str | None:
    """The stage of the verdict's bottleneck; None without a bottleneck."""
    return verdict["bottleneck"]["stage"] if verdict["bottleneck"] else None


def pss_mb(pids: Mapping[str, int]) -> float:
    """Proportional memory (PSS) in MB of all processes but the broker, with their children; 0 if unreadable."""
    total = 0
    for name, pid in pids.items():
        if name == "broker":
            continue
        for process in [pid, *_children(pid)]:
            with contextlib.suppress(OSError), open(f"/proc/{process}/smaps_rollup", encoding="ascii") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total / 1024


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for child in file.read().split():
            children += [int(child), *_children(int(child))]
    return children
