"""A service that is killed with SIGKILL while it consumes or publishes loses no event and applies none twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from deploy.local.processes import spawn, tail
from shared.contract.events import LIFECYCLE
from shared.kafka.settings import KafkaSettings
from tests.fixtures.services import ROOT
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.reading import first_sightings, read_topic

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import MakePool

STEPS = [
    "consumer-before-stage",
    "consumer-before-commit",
    "consumer-after-commit",
    "relay-before-send",
    "relay-after-send",
    "relay-after-cursor",
]


class SmallService:
    """A process of `tests.kills.small_service` that can be started several times."""

    def __init__(self, dsn: str, kafka: KafkaSettings, folder: Path) -> None:
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HOSO_")},
            "HOSO_DATABASE": dsn,
            "HOSO_KAFKA": kafka.servers,
            "HOSO_KAFKA_FLAVOUR": kafka.flavour,
            "HOSO_FAULT_FILE": str(folder / "died-once"),
        }
        self.log = folder / "service.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, fault: str = "") -> None:
        command = [sys.executable, "-m", "tests.kills.small_service"]
        self.process = spawn(command, log=self.log, env={**self._env, "HOSO_FAULT": fault}, cwd=ROOT)

    def poll(self) -> int | None:
        return self.process.poll() if self.process else None

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def services() -> Iterator[list[SmallService]]:
    started: list[SmallService] = []
    yield started
    for service in started:
        service.kill()


async def all_answered(pool: Pool, dossiers: list[UUID], rounds: int) -> bool:
    """Whether every event took effect and every answer was sent."""
    applied = await pool.fetchval("select count(*) from effects")
    unsent = await pool.fetchval("select count(*) from proof.events where sent_at is null")
    return bool(applied >= len(dossiers) * rounds and not unsent)


async def died_or_answered(service: SmallService, pool: Pool, dossiers: list[UUID], rounds: int) -> bool:
    return service.poll() is not None or await all_answered(pool, dossiers, rounds)


@pytest.mark.parametrize("step", STEPS)
async def test_nothing_is_lost_or_repeated_over_a_kill(
    step: str, make_pool: MakePool, kafka: KafkaSettings, tmp_path: Path, services: list[SmallService]
) -> None:
    dsn, pool = await make_pool.with_dsn("shared")
    await pool.execute(world.TABLE)
    dossiers = [uuid4() for _ in range(12)]
    service = SmallService(dsn, kafka, tmp_path)
    services.append(service)
    service.start(f"{step}:2")

    for sequence in (1, 2, 3):
        await world.append(pool, *((dossier_id, sequence) for dossier_id in dossiers))
        # Round by round: otherwise a consumer that joins late applies all events in one batch.
        await wait_until(lambda: died_or_answered(service, pool, dossiers, sequence), 60, what=tail(service.log))  # noqa: B023
    await wait_until(lambda: service.poll() is not None, 30, what=f"the process dies at {step}\n{tail(service.log)}")
    assert service.poll() == -signal.SIGKILL, tail(service.log)
    service.start(step)
    await world.append(pool, *((dossier_id, 4) for dossier_id in dossiers))

    await wait_until(lambda: all_answered(pool, dossiers, 4), 60, what=tail(service.log))
    assert service.poll() is None, "the process must die only once"
    effects = await world.effects(pool)
    assert len(effects) == len(dossiers) * 4
    for dossier_id in dossiers:
        assert [n for d, n in effects if d == dossier_id] == [1, 2, 3, 4]
    assert await world.doubles(pool) == 0
    assert await world.parked(pool) == []
    assert await world.held(pool) == {}
    answers = first_sightings(await read_topic(kafka, LIFECYCLE))
    assert answers == {dossier_id: [1, 2, 3, 4] for dossier_id in dossiers}
