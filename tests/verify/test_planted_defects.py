"""Each planted defect turns its zero of the proof into a one: a dropped, a doubled, a swapped event."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import asyncpg

from deploy import verify
from tests.fixtures.outside import outside
from tests.fixtures.waiting import wait_until
from tests.verify.conftest import Statistics
from tests.verify.world import HEALTHY, LIFECYCLE, NOTICES, SUBMISSIONS, Notice, World, kinds


async def test_a_healthy_world_has_four_zeros_and_is_quiet(world: World) -> None:
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.quiet is True
    assert report.troubles == []
    assert verify.exit_code(report) == 0
    content = report.as_json()
    assert {name: content[name] for name in HEALTHY} == HEALTHY
    assert content["counts"]["intake"] == {"submissions": 3, "events": 3}
    assert content["counts"]["kafka"][LIFECYCLE] == 12
    assert content["empty"] is False
    assert len(content["clusters"]) == 1


async def test_an_empty_stack_is_reported_as_empty(world: World) -> None:
    report = await World(world.dsns, world.kafka, world.registry).prove()
    assert report.figures() == HEALTHY
    assert report.as_json()["empty"] is True


# ---- drop ---------------------------------------------------------------------------------------------------------


async def test_an_event_that_its_consumer_never_applied_is_lost(world: World) -> None:
    world.not_applied(world.find("IdNumberFound"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"event-never-applied": 1}
    assert report.quiet is True
    assert verify.exit_code(report) == 1


async def test_the_consumer_of_every_internal_topic_is_checked(world: World) -> None:
    types = ("IdNumberWanted", "IdNumberFound", "NoticeWanted", "NoticeSent", "DossierSubmitted")
    world.not_applied(*(world.find(type) for type in types))
    assert (await world.prove()).figures() == HEALTHY | {"lost": 5}


async def test_an_event_applied_by_the_wrong_service_is_still_lost(world: World) -> None:
    lost = world.find("IdNumberFound")
    world.not_applied(lost)
    await world.write()
    tx = await asyncpg.connect(world.dsns["notify"])
    await tx.execute("insert into applied values ($1, $2, $3, 1)", lost.topic, lost.dossier, lost.sequence)
    await tx.close()
    assert (await verify.run(world.endpoints(), settle_seconds=0)).figures() == HEALTHY | {"lost": 1}


async def test_a_submission_that_was_never_recorded_is_lost(world: World) -> None:
    world.submitted.append(uuid4())
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"submission-not-recorded": 1}


async def test_a_submission_applied_without_effect_is_lost(world: World) -> None:
    dossier = uuid4()
    world.submitted.append(dossier)
    world.emit(SUBMISSIONS, dossier, "DossierSubmitted")
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert report.as_json()["details"]["lost"][0]["why"] == "DossierSubmitted was applied without effect"


async def test_a_submission_whose_event_was_never_applied_counts_as_one_loss(world: World) -> None:
    dossier = uuid4()
    world.submitted.append(dossier)
    world.not_applied(world.emit(SUBMISSIONS, dossier, "DossierSubmitted"))
    assert (await world.prove()).figures() == HEALTHY | {"lost": 1}


async def test_a_wanted_notice_without_a_ledger_row_is_lost(world: World) -> None:
    world.notices = world.notices[1:]
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"notice-without-row": 1}


async def test_a_public_event_marked_as_sent_but_missing_on_the_broker_is_lost(world: World) -> None:
    world.broker.remove(world.find("ResultReturned"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"sent-but-not-on-broker": 1}


# ---- double -------------------------------------------------------------------------------------------------------


async def test_an_event_applied_twice_is_a_repeated_effect(world: World) -> None:
    twice = world.find("IdNumberFound")
    world.not_applied(twice)
    world.applied.append((twice, 2))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"applied-more-than-once": 1}
    assert verify.exit_code(report) == 1


async def test_an_event_sent_twice_and_applied_once_is_no_defect(world: World) -> None:
    world.broker += world.broker
    assert (await world.prove()).figures() == HEALTHY


async def test_a_second_ledger_row_on_one_channel_is_a_repeated_effect(world: World) -> None:
    notice, dossier, _, _ = world.notices[0]
    for channel in ("email", "zalo"):
        world.notices.append(Notice(notice, dossier, channel, "sent"))
        world.emit(NOTICES, dossier, "NoticeSent", notice_id=str(notice), channel=channel)
    assert (await world.prove()).figures() == HEALTHY
    world.notices[-1] = Notice(notice, dossier, "sms", "sent")
    report = await world.prove_again()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"second-notice": 1}


async def test_two_notice_sent_events_for_one_channel_are_a_repeated_effect(world: World) -> None:
    first = world.find("NoticeSent")
    world.emit(first.topic, first.dossier, "NoticeSent", **first.data)
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"second-notice": 1}


async def test_a_second_code_for_a_dossier_is_a_repeated_effect(world: World) -> None:
    world.emit(LIFECYCLE, world.submitted[0], "DossierReceived", dossier_code="H08.15.99-250826-99999")
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"second-code": 1}


async def test_one_code_for_two_dossiers_is_a_repeated_effect(world: World) -> None:
    world.birth(world.find("DossierReceived").data["dossier_code"])
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"code-of-two-dossiers": 1}


async def test_a_submission_recorded_twice_is_a_repeated_effect(world: World) -> None:
    world.emit(LIFECYCLE, world.submitted[0], "DossierRecorded")
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"happened-twice": 1}


async def test_a_second_number_issued_to_a_dossier_is_a_repeated_effect(world: World) -> None:
    world.emit(LIFECYCLE, world.submitted[0], "IdNumberIssued")
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"happened-twice": 1}


# ---- second number ------------------------------------------------------------------------------------------------


async def test_a_number_issued_twice_is_counted_from_the_registrys_statistics(
    world: World, statistics: Statistics
) -> None:
    statistics.twice = 1
    report = await world.prove()
    assert report.figures() == HEALTHY | {"numbers_issued_twice": 1}
    assert verify.exit_code(report) == 1


async def test_two_keys_for_one_person_at_the_real_simulator_are_counted(world: World, tmp_path: Path) -> None:
    async with outside("deploy.registry_simulator", tmp_path) as registry:
        for key in ("first", "second"):
            body = {"kind": "issue", "subject": {"full_name": "Nguyễn Minh Mẫu", "birth_date": "2025-06-20"}}
            await registry.http.post("/v1/requests", headers={"Idempotency-Key": key}, json=body)

        async def both_issued() -> bool:
            return (await registry.stats())["numbers_issued"] == 2

        await wait_until(both_issued)
        world.registry = registry.url
        report = await world.prove()
    assert report.figures() == HEALTHY | {"numbers_issued_twice": 1}
    assert verify.exit_code(report) == 1


# ---- swap ---------------------------------------------------------------------------------------------------------


async def test_two_events_swapped_on_the_broker_break_the_order(world: World) -> None:
    world.swap(world.find("DossierReceived"), world.find("IdNumberIssued"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"order_violations": 1}
    assert report.as_json()["details"]["order_violations"][0] == {
        "kind": "out-of-order",
        "topic": LIFECYCLE,
        "dossier": str(world.submitted[0]),
        "missed": 3,
        "highest": 4,
        "seen": [1, 3, 2, 4],
    }
    assert verify.exit_code(report) == 1


async def test_an_event_missing_between_others_on_the_broker_breaks_the_order(world: World) -> None:
    world.broker.remove(world.find("IdNumberIssued"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"order_violations": 1}
    assert kinds(report, "order_violations") == {"out-of-order": 1}


async def test_a_gap_in_the_stored_events_breaks_the_order(world: World) -> None:
    world.events.remove(world.find("IdNumberIssued"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"order_violations": 1}
    assert kinds(report, "order_violations") == {"gap-in-events": 1}


async def test_two_ids_for_one_sequence_on_the_broker_break_the_order(world: World) -> None:
    world.broker.append(world.find("IdNumberIssued").copy(ce_id=uuid4()))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"order_violations": 1}
    assert kinds(report, "order_violations") == {"two-ids": 1}


async def test_an_id_on_the_broker_that_differs_from_the_stored_one_breaks_the_order(world: World) -> None:
    issued = world.find("IdNumberIssued")
    world.broker[world.broker.index(issued)] = issued.copy(ce_id=uuid4())
    report = await world.prove()
    assert report.figures() == HEALTHY | {"order_violations": 1}
    assert kinds(report, "order_violations") == {"two-ids": 1}


async def test_a_refill_after_a_wiped_broker_is_no_violation(world: World) -> None:
    """The records in flight arrive first, then all records again from the oldest event."""
    world.broker = [world.find("IdNumberIssued"), world.find("ResultReturned"), *world.broker]
    assert (await world.prove()).figures() == HEALTHY


async def test_a_refill_in_progress_is_not_quiet_and_no_violation(world: World) -> None:
    lifecycle = [event for event in world.events if event.topic == LIFECYCLE and event.dossier == world.submitted[0]]
    world.broker = [event for event in world.broker if event not in lifecycle[:-1]]
    world.unsent = lifecycle
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.quiet is False
    assert report.as_json()["waiting"]["unsent"] == 4


# ---- parked or held, not lost -------------------------------------------------------------------------------------


async def test_parked_events_and_the_events_held_behind_them_are_listed_and_not_lost(world: World) -> None:
    parked, behind = [event for event in world.events if event.type == "NoticeWanted"][:2]
    world.not_applied(parked, behind)
    world.parked.append((parked, "schema"))
    world.held.append((behind, "behind"))
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.quiet is True
    assert report.as_json()["set_aside"] == {"parked": 1, "discarded": 0, "behind": 1, "strangers": 0}
    assert report.as_json()["details"]["parked"][0]["reason"] == "schema"


async def test_an_event_held_behind_nothing_is_lost(world: World) -> None:
    behind = world.find("NoticeWanted", 1)
    world.not_applied(behind)
    world.held.append((behind, "behind"))
    assert (await world.prove()).figures() == HEALTHY | {"lost": 1}


async def test_an_event_held_behind_a_later_event_is_lost(world: World) -> None:
    held, parked = [event for event in world.events if event.type == "NoticeWanted"][:2]
    world.not_applied(held, parked)
    world.held.append((held, "behind"))
    world.parked.append((parked, "schema"))
    assert (await world.prove()).figures() == HEALTHY | {"lost": 1}


async def test_a_parked_impostor_does_not_excuse_the_real_event(world: World) -> None:
    lost = world.find("NoticeSent")
    world.not_applied(lost)
    world.parked.append((lost.copy(ce_id=uuid4()), "identity-conflict"))
    assert (await world.prove()).figures() == HEALTHY | {"lost": 1}


async def test_a_parked_submission_is_not_lost(world: World) -> None:
    dossier = uuid4()
    world.submitted.append(dossier)
    submitted = world.emit(SUBMISSIONS, dossier, "DossierSubmitted")
    world.not_applied(submitted)
    world.parked.append((submitted, "rule"))
    assert (await world.prove()).figures() == HEALTHY


async def test_a_discarded_event_is_listed_and_does_not_excuse_the_events_held_behind_it(world: World) -> None:
    discarded, behind = [event for event in world.events if event.type == "NoticeWanted"][:2]
    world.not_applied(discarded)
    world.parked.append((discarded, "discarded: schema"))
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.as_json()["set_aside"]["discarded"] == 1
    world.not_applied(behind)
    world.held.append((behind, "behind"))
    assert (await world.prove_again()).figures() == HEALTHY | {"lost": 1}
