"""The report of an incomplete proof, and its printed form."""

from __future__ import annotations

import io
import json
from uuid import uuid4

import asyncpg
from rich.console import Console

from deploy import verify
from deploy.local.ports import free_port
from shared.kafka.settings import KafkaSettings
from tests.verify.world import HEALTHY, LIFECYCLE, SUBMISSIONS, World


def printed(report: verify.Report) -> str:
    output = io.StringIO()
    report.show(Console(file=output, width=160))
    return output.getvalue()


async def test_a_database_that_does_not_answer_leaves_every_figure_unmeasured(world: World) -> None:
    await world.write()
    world.dsns = world.dsns | {"notify": f"postgresql://postgres@127.0.0.1:{free_port()}/notify"}
    report = await verify.run(world.endpoints(), settle_seconds=0)
    assert report.figures() == {
        "lost": None, "repeated_effects": None, "numbers_issued_twice": 0, "order_violations": None
    }  # fmt: skip
    assert report.quiet is None
    assert verify.exit_code(report) == 1
    assert "không đo được / not measured" in printed(report)


async def test_a_missing_proof_view_is_not_mistaken_for_an_empty_one(world: World) -> None:
    await world.write()
    tx = await asyncpg.connect(world.dsns["notify"])
    await tx.execute("alter view proof.notices rename to gone")
    try:
        report = await verify.run(world.endpoints(), settle_seconds=0)
    finally:
        await tx.execute("alter view proof.gone rename to notices")
        await tx.close()
    assert report.figures()["lost"] is None
    assert "proof.notices" in report.troubles[0]
    assert verify.exit_code(report) == 1


async def test_a_broker_without_the_topics_of_sent_events_makes_the_proof_incomplete(
    proof_dsns: dict[str, str], kafka: KafkaSettings
) -> None:
    world = World(proof_dsns, kafka.servers, "")
    world.submitted.append(uuid4())
    world.emit(SUBMISSIONS, world.submitted[0], "DossierSubmitted")
    world.unsent.append(world.emit(LIFECYCLE, world.submitted[0], "DossierRecorded"))
    world.broker = []
    report = await world.prove()
    assert report.complete is False
    assert SUBMISSIONS in report.troubles[0]
    assert LIFECYCLE not in report.troubles[0]
    assert verify.exit_code(report) == 1


async def test_a_registry_that_does_not_answer_fails_the_proof_and_no_registry_does_not(world: World) -> None:
    await world.write()
    world.registry = f"http://127.0.0.1:{free_port()}"
    report = await verify.run(world.endpoints(), settle_seconds=0)
    assert report.figures() == HEALTHY | {"numbers_issued_twice": None}
    assert verify.exit_code(report) == 1
    world.registry = ""
    report = await verify.run(world.endpoints(), settle_seconds=0)
    assert report.figures() == HEALTHY | {"numbers_issued_twice": None}
    assert verify.exit_code(report) == 0


async def test_the_report_is_plain_json_and_prints_in_both_languages(world: World) -> None:
    lost = world.find("IdNumberFound")
    world.not_applied(lost)
    report = await world.prove()
    assert json.loads(json.dumps(report.as_json()))["details"]["lost"][0]["dossier"] == str(lost.dossier)
    text = printed(report)
    for piece in (
        "Thất lạc / lost",
        "1",
        "Yên: không còn gì đang chạy. / Quiet: nothing is moving.",
        str(lost.dossier),
    ):
        assert piece in text


async def test_examples_are_limited_and_the_count_is_complete(world: World) -> None:
    world.healthy(10)
    world.applied = []
    await world.write()
    report = await verify.run(world.endpoints(), settle_seconds=0, examples=4)
    assert len(report.as_json()["details"]["lost"]) == 4
    assert report.figures()["lost"] == 13 * 7
