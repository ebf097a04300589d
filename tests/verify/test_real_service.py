"""The proof on a service's own database: the real notify process, then defects planted in its tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from deploy import verify
from deploy.verify.databases import FIRST_ROUND, QUERIES, SECOND_ROUND
from deploy.verify.stream import read_record
from shared.contract.envelope import NO_TRACE, headers_of, new_id
from shared.contract.events import COMPACTED, EVENT_TYPES, Heartbeat
from shared.kafka.settings import KafkaSettings
from tests.fixtures.databases import Databases, MakePool
from tests.fixtures.services import StartService
from tests.fixtures.waiting import wait_until
from tests.notify.ledger import WITH_NOTHING, wanted
from tests.verify.world import HEALTHY, LIFECYCLE, NOTICE_REQUESTS, SUBMISSIONS, World, kinds


async def test_defects_planted_in_the_database_of_the_running_notify_are_found(
    world: World, kafka: KafkaSettings, make_pool: MakePool, start_service: StartService
) -> None:
    dsn, pool = await make_pool.with_dsn("shared", "services.notify")
    world = World({**world.dsns, "notify": dsn}, world.kafka, world.registry, real={"notify"})
    for _ in range(3):
        dossier = uuid4()
        world.submitted.append(dossier)
        world.emit(SUBMISSIONS, dossier, "DossierSubmitted")
        world.emit(LIFECYCLE, dossier, "DossierRecorded")
        for _ in range(2):
            fact = wanted(dossier, WITH_NOTHING)
            world.emit(NOTICE_REQUESTS, dossier, "NoticeWanted", **json.loads(fact.model_dump_json()))
    await start_service("notify", dsn, kafka)
    await world.write()

    async def all_is_published() -> bool:
        return bool(
            await pool.fetchval("select count(*) from proof.notices where state not in ('due', 'sending')") == 6
            and not await pool.fetchval("select count(*) from proof.events where sent_at is null")
        )

    await wait_until(all_is_published, 60)
    workflow = await asyncpg.connect(world.dsns["workflow"])
    applied = await pool.fetch("select topic, dossier_id, sequence, 1 from proof.events")
    await workflow.executemany("insert into applied values ($1, $2, $3, $4)", [tuple(row) for row in applied])
    await workflow.close()

    report = await verify.run(world.endpoints(), settle_seconds=20)
    assert report.figures() == HEALTHY, report.as_json()["details"]
    assert report.quiet is True
    assert report.counts["notify"]["applied"] == 6

    _, second, third = world.submitted
    await pool.execute("delete from notices where notice_id = $1", world.find("NoticeWanted").ce_id)
    report = await verify.run(world.endpoints(), settle_seconds=0)
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"notice-without-row": 1}

    await pool.execute("delete from applied where dossier_id = $1", second)
    report = await verify.run(world.endpoints(), settle_seconds=0)
    assert report.figures() == HEALTHY | {"lost": 3}
    assert kinds(report, "lost") == {"notice-without-row": 1, "event-never-applied": 2}

    again = "insert into applied (topic, dossier_id, from_sequence, to_sequence) values ($1::text::topic, $2, 2, 2)"
    await pool.execute(again, NOTICE_REQUESTS, third)
    report = await verify.run(world.endpoints(), settle_seconds=0)
    assert report.figures() == HEALTHY | {"lost": 3, "repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"applied-more-than-once": 1}


@pytest.mark.parametrize("service", ["intake", "workflow", "idlookup", "notify"])
async def test_every_service_has_the_views_that_the_proof_reads(service: str, databases: Databases) -> None:
    tx = await asyncpg.connect(await databases.create("shared", f"services.{service}"))
    try:
        for view in (*FIRST_ROUND[service], *SECOND_ROUND[service]):
            assert await tx.fetch(QUERIES[view], *(["x"] if view == "recorded" else [])) == []
    finally:
        await tx.close()


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
def test_the_proof_reads_every_record_that_the_services_write(kind: str) -> None:
    fact = EVENT_TYPES[kind]
    if fact.topic in COMPACTED:
        return
    dossier, ce_id = new_id(), new_id()
    headers = headers_of(
        topic=fact.topic,
        subject=str(dossier),
        sequence=12,
        ce_id=ce_id,
        type=fact.__name__,
        trace_id=NO_TRACE,
        recorded_at=datetime.now(UTC),
    )
    seen = read_record(fact.topic, str(dossier).encode(), headers, b"{}")
    if issubclass(fact, Heartbeat):
        assert seen is None
    else:
        assert seen is not None
        assert (seen.dossier, seen.sequence, seen.ce_id, seen.type) == (dossier.bytes, 12, ce_id.bytes, fact.__name__)
