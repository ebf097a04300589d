"""How busy the machine is while the demo runs, measured by the demo itself and never from the product's figures.

Office time runs thousands of times faster than wall time, so a second that another program takes from the processors
is an hour of the week. The probe sleeps a short time again and again and records how late it wakes, and it reads from
the operating system who uses the processors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

TIMER_S = 0.02
"""The probe's timer sleeps this long."""
PROCESSORS_EVERY_S = 1.0
MIN_OTHERS_SHARE = 0.2
"""Below this share of the processors other programs are not the reason that timers are late."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ticks:
    """Processor time since the machine started, in seconds, over the processors that this process may use."""

    at: float
    """`time.time()` of the reading."""
    idle: float
    own: float
    """Used by the demo, by the stack's processes and by what these started."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the machine was in a stretch of wall time."""

    late_p95_ms: float
    late_p99_ms: float
    late_max_ms: float
    lost_share: float
    """How late the timers were in all, as a share of the wall time."""
    idle_share: float | None
    """Share of the processor time that nobody used; None where the system does not tell."""
    others_share: float | None
    """Share that neither the demo nor the stack used: other programs, the system, the hypervisor."""
    stall_ms: float | None
    """The latest timer in a second in which others used MIN_OTHERS_SHARE of the processors or more."""


class MachineProbe:
    """Records timer lateness and processor time while `run` runs. `pids`: the stack's processes."""

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self._roots = (os.getpid(), *pids)
        self._late: list[tuple[float, float]] = []
        self._ticks: list[Ticks] = []

    async def run(self) -> None:
        """Measure until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._measure_timers())
            group.create_task(self._measure_processors())

    async def _measure_timers(self) -> None:
        while True:
            due = time.monotonic() + TIMER_S
            await asyncio.sleep(TIMER_S)
            self._late.append((time.time(), max(time.monotonic() - due, 0.0)))

    async def _measure_processors(self) -> None:
        while (ticks := await asyncio.to_thread(read_ticks, self._roots)) is not None:
            self._ticks.append(ticks)
            await asyncio.sleep(PROCESSORS_EVERY_S)

    def load(self, begin: float = 0.0, end: float = float("inf")) -> Load | None:
        """The load between two wall moments (seconds since 1970); None when no timer ended there."""
        late = [timer for timer in self._late if begin <= timer[0] < end]
        return measure(late, [ticks for ticks in self._ticks if begin <= ticks.at < end])


def measure(timers: Sequence[tuple[float, float]], ticks: Sequence[Ticks]) -> Load | None:
    """The load of one stretch of time. `timers`: (when it woke, how late), in seconds; `ticks`: readings in order."""
    if not timers:
        return None
    ordered = sorted(late for _, late in timers)
    idle = others = stall = None
    if len(ticks) > 1:
        idle, others = _shares(ticks[0], ticks[-1])
        stall = _longest_stall(timers, ticks)
    return Load(
        late_p95_ms=_percentile_ms(ordered, 0.95),
        late_p99_ms=_percentile_ms(ordered, 0.99),
        late_max_ms=round(ordered[-1] * 1000, 1),
        lost_share=round(sum(ordered) / (sum(ordered) + len(ordered) * TIMER_S), 4),
        idle_share=None if idle is None else round(idle, 3),
        others_share=None if others is None else round(others, 3),
        stall_ms=None if stall is None else round(stall * 1000, 1),
    )


def _shares(first: Ticks, last: Ticks) -> tuple[float, float]:
    """(idle, others) between two readings."""
    whole = (last.at - first.at) * cores()
    idle = min(max((last.idle - first.idle) / whole, 0.0), 1.0)
    return idle, max(1.0 - idle - (last.own - first.own) / whole, 0.0)


def _longest_stall(timers: Sequence[tuple[float, float]], ticks: Sequence[Ticks]) -> float:
    """The longest lateness between two neighbouring readings where others used enough to be the reason."""
    longest = 0.0
    for first, last in pairwise(ticks):
        late = max((late for at, late in timers if first.at <= at < last.at), default=0.0)
        if late > longest and _shares(first, last)[1] >= MIN_OTHERS_SHARE:
            longest = late
    return longest


def _percentile_ms(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000, 1)


def cores() -> int:
    """Processors that this process may use."""
    return len(_usable())


def _usable() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return set(range(os.cpu_count() or 1))


def read_ticks(roots: Iterable[int]) -> Ticks | None:
    """The processors' time now; `roots` and what they started count as own. None on a system without /proc."""
    wanted = {f"cpu{number}" for number in _usable()}
    try:
        with open("/proc/stat", encoding="ascii") as file:
            rows = [line.split() for line in file if line.startswith("cpu")]
    except OSError:
        return None
    idle = sum(int(row[4]) + int(row[5]) for row in rows if row[0] in wanted)
    return Ticks(time.time(), idle / TICKS_PER_S, _used(roots) / TICKS_PER_S)


def _used(roots: Iterable[int]) -> int:
    """Ticks used by these processes, their descendants, and descendants that ended."""
    ticks, children = dict[int, int](), defaultdict[int, list[int]](list)
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit():
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    # After the program's name in brackets: state, parent, …, four kinds of used time.
                    fields = file.read().rpartition(")")[2].split()
                ticks[int(name)] = sum(map(int, fields[11:15]))
                children[int(fields[1])].append(int(name))
    total, left = 0, set(roots)
    while left:
        pid = left.pop()
        total += ticks.pop(pid, 0)
        left.update(children.pop(pid, ()))
    return total
