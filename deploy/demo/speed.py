"""Which office speed the demo uses: `--speed N`, or the highest one that this machine can carry."""

from __future__ import annotations

import asyncio

import typer

from deploy.demo.judge import MAX_LATE_OFFICE_S
from deploy.demo.machine import Load, MachineProbe

AUTO = "auto"
SPEEDS = (3000.0, 2000.0, 1500.0, 1000.0)
"""The week takes 2, 3, 4 or 6 minutes."""
MIN_SPEED = 60.0
MEASURE_S = 1.5
BASE_CORES, COMMUNE_CORES = 0.45, 0.55
"""Processors that the stack and the demo use at night, and what one commune adds in office hours at 3,000."""
USABLE_SHARE = 0.75
"""Above this share of the free processors, programs begin to wait for each other."""


def parse_speed(text: str) -> float | None:
    """Office seconds per second; None for `auto`. Raises typer.BadParameter."""
    if text == AUTO:
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not MIN_SPEED <= speed <= 100_000:
        raise typer.BadParameter("--speed: auto, 60 <= N <= 100000")
    return speed


def choose_speed(load: Load | None, cores: int, communes: int = 1) -> float:
    """The highest of SPEEDS for which the machine has processors free and punctual timers, else the lowest one."""
    free = cores * (1.0 - ((load.others_share if load else None) or 0.0))
    late_s = load.late_p95_ms / 1000 if load else 0.0
    for speed in SPEEDS:
        needed = BASE_CORES + COMMUNE_CORES * communes * speed / SPEEDS[0]
        if needed <= USABLE_SHARE * free and late_s * speed <= MAX_LATE_OFFICE_S:
            return speed
    return SPEEDS[-1]


async def measure_start() -> Load | None:
    """The machine's load before anything of the stack runs."""
    probe = MachineProbe()
    task = asyncio.create_task(probe.run())
    await asyncio.sleep(MEASURE_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return probe.load()
