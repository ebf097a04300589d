"""Quiet means: nothing unsent, held, due now or in flight. Work in progress is neither lost nor verified."""

from __future__ import annotations

from uuid import uuid4

import asyncpg

from deploy import verify
from tests.verify.conftest import Statistics
from tests.verify.world import FOUND, HEALTHY, SUBMISSIONS, Notice, World


async def test_an_unsent_event_or_one_in_flight_is_not_lost_and_not_quiet(world: World) -> None:
    unsent, sent = world.find("IdNumberFound"), world.find("NoticeWanted")
    world.not_applied(unsent, sent)
    world.unsent.append(unsent)
    world.just_sent.append(sent)
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.quiet is False
    waiting = report.as_json()["waiting"]
    assert waiting == {"unsent": 1, "in_flight": 1, "held": 0, "requests": 0, "notices": 0}


async def test_a_submission_in_flight_is_not_lost(world: World) -> None:
    dossier = uuid4()
    world.submitted.append(dossier)
    submitted = world.emit(SUBMISSIONS, dossier, "DossierSubmitted")
    world.not_applied(submitted)
    world.unsent.append(submitted)
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.quiet is False


async def test_an_event_held_for_a_gap_is_not_quiet(world: World) -> None:
    world.held.append((world.find("IdNumberFound"), "gap"))
    report = await world.prove()
    assert report.as_json()["waiting"]["held"] == 1
    assert report.quiet is False


async def test_a_request_being_called_or_a_notice_being_sent_is_not_quiet(world: World) -> None:
    world.request("IdNumberWanted", "calling")
    assert (await world.prove()).quiet is False
    world.requests.pop()
    notice, dossier, _, _ = world.notices[0]
    world.notices.append(Notice(notice, dossier, "email", "sending"))
    assert (await world.prove_again()).as_json()["waiting"]["notices"] == 1


async def test_a_request_pending_at_a_slow_registry_is_quiet(world: World, statistics: Statistics) -> None:
    statistics.in_flight = 1
    world.due_in_s[world.request("IdNumberWanted", "pending")] = 4.0
    assert (await world.prove()).quiet is True


async def test_a_request_pending_while_the_registry_is_idle_is_not_quiet(world: World, statistics: Statistics) -> None:
    world.due_in_s[world.request("IdNumberWanted", "pending")] = 4.0
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.as_json()["waiting"]["requests"] == 1
    assert report.quiet is False


async def test_a_pending_request_that_is_overdue_is_not_quiet(world: World, statistics: Statistics) -> None:
    statistics.in_flight = 2
    world.due_in_s |= {
        world.request("IdNumberWanted", "pending"): -60.0,
        world.request("IdCheckWanted", "pending"): -1.0,
    }
    report = await world.prove()
    assert report.as_json()["waiting"]["requests"] == 1
    world.registry = ""
    assert (await world.prove_again()).as_json()["waiting"]["requests"] == 1


async def test_the_proof_waits_for_events_in_flight(world: World) -> None:
    """The consumer applies the event while the proof waits: it is neither lost nor in flight."""
    late = world.find("IdNumberFound")
    world.not_applied(late)
    world.just_sent.append(late)
    await world.write()
    tx = await asyncpg.connect(world.dsns["workflow"])
    await tx.execute(
        "create or replace view proof.applied as select topic, dossier_id, sequence, times from applied"
        " union all select $$" + FOUND + "$$, '" + str(late.dossier) + "', 1, 1"
        f" where clock_timestamp() > timestamptz '{await tx.fetchval('select now()')}' + interval '1 second'"
    )
    try:
        report = await verify.run(world.endpoints(), settle_seconds=20)
    finally:
        await tx.execute("create or replace view proof.applied as select * from applied")
        await tx.close()
    assert report.figures() == HEALTHY
    assert report.quiet is True
    assert 1 <= report.seconds < 20
