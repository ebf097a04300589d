"""Every service is killed with SIGKILL at every step where it could lose or repeat work, with work in flight."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deploy.local.program import Program
from deploy.local.stack import Stack
from shared.fault_points import FAULT_POINTS
from tests.fixtures.waiting import wait_until
from tests.journeys.town import BIRTH, COPY, Town

WAVES = (
    {
        "intake": "intake-before-commit",
        "workflow": "consumer-before-stage",
        "idlookup": "idlookup-before-call",
        "notify": "notify-before-send",
    },
    {
        "intake": "intake-after-commit",
        "workflow": "consumer-before-commit",
        "idlookup": "idlookup-after-answer",
        "notify": "notify-after-send",
    },
    {
        "intake": "relay-before-send",
        "workflow": "consumer-after-commit",
        "idlookup": "idlookup-before-commit",
        "notify": "relay-after-cursor",
    },
    {
        "intake": "relay-after-send",
        "workflow": "relay-before-send",
        "idlookup": "consumer-before-commit",
        "notify": "consumer-before-stage",
    },
    {
        "intake": "relay-after-cursor",
        "workflow": "relay-after-send",
        "idlookup": "relay-after-cursor",
        "notify": "consumer-after-commit",
    },
)
"""Service -> its fault point. The services of one wave die while they process the same dossiers."""
CONSUMERS = ("workflow", "idlookup", "notify")


def test_every_fault_point_has_its_wave() -> None:
    assert {point for wave in WAVES for point in wave.values()} == set(FAULT_POINTS)


def arm(stack: Stack, name: str, point: str, file: Path) -> None:
    """Make the process die at `point` once; after the supervisor's restart it does not die again."""
    program = stack.supervisor[name].runnable
    assert isinstance(program, Program)
    program.env = {**program.env, "HOSO_FAULT": point, "HOSO_FAULT_FILE": str(file)}


@pytest.mark.parametrize("wave", WAVES, ids=lambda wave: "+".join(wave.values()))
async def test_a_process_killed_at_a_fault_point_loses_nothing_and_repeats_nothing(
    town: Town, wave: dict[str, str], tmp_path: Path
) -> None:
    stack = town.stack
    files = {name: tmp_path / name for name in wave}
    agency = f"H44.K{WAVES.index(wave):02d}"
    for name, point in wave.items():
        arm(stack, name, point, files[name])
    await asyncio.gather(*(asyncio.to_thread(stack.take_down, name) for name in CONSUMERS))
    if "intake" in wave:
        await asyncio.to_thread(stack.restart, "intake")
    filed = await asyncio.gather(*(town.file(code, agency) for code in (BIRTH, COPY, BIRTH, BIRTH, COPY, BIRTH)))
    # The consumers start with the dossiers waiting, so each dies with work in flight.
    for name in CONSUMERS:
        await asyncio.to_thread(stack.bring_back, name)
    await town.work_all(list(filed), bound_s=90)

    def all_have_died() -> bool:
        return all(file.exists() and stack.supervisor[name].deaths for name, file in files.items())

    await wait_until(all_have_died, 30, what=f"died: {[name for name, file in files.items() if file.exists()]}")
    for dossier in filed:
        types = await town.types(dossier)
        assert (types.count("DossierRecorded"), types.count("ResultReturned")) == (1, 1)
    report = await town.prove()
    assert report.registry is not None
    assert report.registry["numbers_issued_twice"] == 0
