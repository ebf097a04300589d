"""A process dies at a fault point only while events of dossiers are at stake; otherwise a kill proves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from shared.contract.envelope import NO_TRACE, Outgoing, Record, headers_of, new_id
from shared.contract.events import SUBMISSIONS, SubmissionHeartbeat
from shared.contract.partitions import lane_of
from shared.inbox import consumer
from shared.kafka.settings import KafkaSettings
from shared.outbox import relay
from tests.fixtures.databases import MakePool
from tests.fixtures.publishing import publish
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.records import NOON, record
from tests.shared.relaying import Sender, everything_sent

SCRIPT = """
from shared import fault_points
fault_points.arm("relay-before-send:2", {file!r})
for at_stake in {stakes}:
    fault_points.fault_point("relay-before-send", at_stake)
    print(at_stake, flush=True)
"""
BEAT = SubmissionHeartbeat(sent_at=NOON)


def run_with_fault(file: Path, stakes: list[int]) -> tuple[int, list[str]]:
    """Run a process that passes an armed fault point with each of `stakes`. Returns its exit code and the passes."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(file=str(file), stakes=stakes)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.split()


def test_a_process_dies_at_its_step_only_while_something_is_at_stake(tmp_path: Path) -> None:
    file = tmp_path / "died"
    assert run_with_fault(file, [0, 0, 5, 0, 0]) == (0, ["0", "0", "5", "0", "0"])
    assert not file.exists()
    assert run_with_fault(file, [0, 5, 0, 7, 1]) == (-signal.SIGKILL, ["0", "5", "0"])
    assert file.exists()
    assert run_with_fault(file, [5, 5, 5]) == (0, ["5", "5", "5"]), "it dies only once"


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Each (fault point, at stake) that the consumer and the relay pass."""
    seen: list[tuple[str, int]] = []
    for module in (consumer, relay):
        monkeypatch.setattr(module, "fault_point", lambda name, at_stake: seen.append((name, at_stake)))
    return seen


def heartbeat() -> Record:
    headers = headers_of(
        topic=SUBMISSIONS, subject="heartbeat", sequence=0, ce_id=new_id(), type="SubmissionHeartbeat",
        trace_id=NO_TRACE, recorded_at=NOON,
    )  # fmt: skip
    return Record(
        SUBMISSIONS, lane_of("heartbeat"), 0, b"heartbeat", tuple(headers), BEAT.model_dump_json().encode(), NOON
    )


async def test_heartbeats_and_repeats_are_not_at_stake_in_a_consumer(
    make_pool: MakePool, passed: list[tuple[str, int]]
) -> None:
    pool = await make_pool("shared")
    await pool.execute(world.TABLE)
    small_consumer = world.consumer(pool)
    first, second, late = record(uuid4(), 1), record(uuid4(), 1), record(uuid4(), 2)
    for batch, at_stake in (([heartbeat(), first, second], 2), ([heartbeat(), first], 0), ([first], 0), ([late], 1)):
        passed.clear()
        await small_consumer.apply(batch)
        assert passed
        assert {stake for _, stake in passed} == {at_stake}


async def test_heartbeats_are_not_at_stake_in_a_relay(
    make_pool: MakePool, kafka: KafkaSettings, passed: list[tuple[str, int]]
) -> None:
    dsn, pool = await make_pool.with_dsn("shared")
    sender = Sender(dsn, pool, kafka)

    async def send(*events: Outgoing) -> set[tuple[str, int]]:
        """Publish `events`. Returns the fault points that the relay passed, each with the events at stake."""
        passed.clear()
        async with pool.acquire() as tx, tx.transaction():
            lanes = await publish(tx, list(events))
        sender.wake(lanes)
        await wait_until(lambda: everything_sent(pool))
        await wait_until(lambda: any(name == "relay-after-cursor" for name, _ in passed))
        return set(passed)

    steps = ("relay-before-send", "relay-after-send", "relay-after-cursor")
    try:
        beat = Outgoing(None, 0, BEAT, new_id(), key="heartbeat")
        assert await send(beat) == {(step, 0) for step in steps}
        event = Outgoing(uuid4(), 1, world.withdrawal(), new_id())
        assert await send(event) == {(step, 1) for step in steps}
    finally:
        await sender.stop()
