"""Each zero of the proof is worth something only if it turns to one when the defect is there: drop, double, swap."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import asyncpg

from deploy import verify
from tests.fixtures.outside import outside
from tests.fixtures.waiting import wait_until
from tests.verify.conftest import Statistics
from tests.verify.world import HEALTHY, LIFECYCLE, NOTICES, SUBMISSIONS, World, kinds


async def test_a_healthy_world_has_four_zeros_and_is_quiet(world: World) -> None:
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.quiet is True
    assert report.troubles == []
    assert verify.exit_code(report) == 0
    found = report.as_json()
    assert {name: found[name] for name in HEALTHY} == HEALTHY
    assert found["counts"]["intake"] == {"submissions": 3, "events": 3}
    assert found["counts"]["kafka"][LIFECYCLE] == 12
    assert found["empty"] is False
    assert len(found["clusters"]) == 1


async def test_an_empty_stack_is_called_empty_and_not_proven(world: World) -> None:
    report = await World(world.dsns, world.kafka, world.registry).prove()
    assert report.figures() == HEALTHY
    assert report.as_json()["empty"] is True


# ---- drop ---------------------------------------------------------------------------------------------------------


async def test_an_event_its_listener_never_applied_is_lost(world: World) -> None:
    world.not_applied(world.find("IdNumberFound"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"event-never-applied": 1}
    assert report.quiet is True
    assert verify.exit_code(report) == 1


async def test_every_internal_topic_has_its_listener_asked(world: World) -> None:
    types = ("IdNumberWanted", "IdNumberFound", "NoticeWanted", "NoticeSent", "DossierSubmitted")
    world.not_applied(*(world.find(type) for type in types))
    assert (await world.prove()).figures() == HEALTHY | {"lost": 5}


async def test_an_event_applied_by_another_service_than_its_listener_is_still_lost(world: World) -> None:
    lost = world.find("IdNumberFound")
    world.not_applied(lost)
    await world.play()
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
    world.say(SUBMISSIONS, dossier, "DossierSubmitted")
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert report.as_json()["details"]["lost"][0]["why"] == "DossierSubmitted was applied without effect"


async def test_a_submission_whose_event_was_never_applied_is_lost_once_and_not_twice(world: World) -> None:
    dossier = uuid4()
    world.submitted.append(dossier)
    world.not_applied(world.say(SUBMISSIONS, dossier, "DossierSubmitted"))
    assert (await world.prove()).figures() == HEALTHY | {"lost": 1}


async def test_a_wanted_notice_without_a_ledger_row_is_lost(world: World) -> None:
    world.notices = world.notices[1:]
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"notice-without-row": 1}


async def test_a_public_event_called_sent_that_the_broker_does_not_have_is_lost(world: World) -> None:
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
        world.notices.append((notice, dossier, channel, "sent"))
        world.say(NOTICES, dossier, "NoticeSent", notice_id=str(notice), channel=channel)
    assert (await world.prove()).figures() == HEALTHY
    world.notices[-1] = (notice, dossier, "sms", "sent")
    report = await world.prove_again()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"second-notice": 1}


async def test_a_notice_said_to_be_sent_twice_on_one_channel_is_a_repeated_effect(world: World) -> None:
    first = world.find("NoticeSent")
    world.say(first.topic, first.dossier, "NoticeSent", **first.data)
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"second-notice": 1}


async def test_a_second_code_for_a_dossier_is_a_repeated_effect(world: World) -> None:
    world.say(LIFECYCLE, world.submitted[0], "DossierReceived", dossier_code="H08.15.99-250826-99999")
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"second-code": 1}


async def test_one_code_for_two_dossiers_is_a_repeated_effect(world: World) -> None:
    world.birth(world.find("DossierReceived").data["dossier_code"])
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"code-of-two-dossiers": 1}


async def test_a_submission_recorded_twice_is_a_repeated_effect(world: World) -> None:
    world.say(LIFECYCLE, world.submitted[0], "DossierRecorded")
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"happened-twice": 1}


async def test_a_second_number_issued_to_a_dossier_is_a_repeated_effect(world: World) -> None:
    world.say(LIFECYCLE, world.submitted[0], "IdNumberIssued")
    report = await world.prove()
    assert report.figures() == HEALTHY | {"repeated_effects": 1}
    assert kinds(report, "repeated_effects") == {"happened-twice": 1}


# ---- second number ------------------------------------------------------------------------------------------------


async def test_a_number_issued_twice_is_the_registrys_word(world: World, statistics: Statistics) -> None:
    statistics.twice = 1
    report = await world.prove()
    assert report.figures() == HEALTHY | {"numbers_issued_twice": 1}
    assert verify.exit_code(report) == 1


async def test_two_keys_for_one_person_are_seen_through_the_real_simulator(world: World, tmp_path: Path) -> None:
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


async def test_an_event_left_out_between_others_on_the_broker_breaks_the_order(world: World) -> None:
    world.broker.remove(world.find("IdNumberIssued"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"order_violations": 1}
    assert kinds(report, "order_violations") == {"out-of-order": 1}


async def test_a_gap_in_the_stored_events_breaks_the_order(world: World) -> None:
    world.said.remove(world.find("IdNumberIssued"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"order_violations": 1}
    assert kinds(report, "order_violations") == {"gap-in-events": 1}


async def test_two_ids_for_one_sequence_on_the_broker_break_the_order(world: World) -> None:
    world.broker.append(world.find("IdNumberIssued").again(ce_id=uuid4()))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"order_violations": 1}
    assert kinds(report, "order_violations") == {"two-ids": 1}


async def test_an_id_on_the_broker_that_differs_from_the_stored_one_breaks_the_order(world: World) -> None:
    one = world.find("IdNumberIssued")
    world.broker[world.broker.index(one)] = one.again(ce_id=uuid4())
    report = await world.prove()
    assert report.figures() == HEALTHY | {"order_violations": 1}
    assert kinds(report, "order_violations") == {"two-ids": 1}


async def test_a_refill_after_a_wiped_broker_is_no_violation(world: World) -> None:
    """What was in flight lands first, then everything again from the oldest event."""
    world.broker = [world.find("IdNumberIssued"), world.find("ResultReturned"), *world.broker]
    assert (await world.prove()).figures() == HEALTHY


async def test_a_refill_still_under_way_is_not_quiet_and_no_violation(world: World) -> None:
    lifecycle = [one for one in world.said if one.topic == LIFECYCLE and one.dossier == world.submitted[0]]
    world.broker = [one for one in world.broker if one not in lifecycle[:-1]]
    world.unsent = lifecycle
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.quiet is False
    assert report.as_json()["waiting"]["unsent"] == 4


# ---- set aside, not lost ------------------------------------------------------------------------------------------


async def test_parked_events_and_those_behind_them_are_listed_and_not_lost(world: World) -> None:
    parked, behind = [one for one in world.said if one.type == "NoticeWanted"][:2]
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


async def test_an_event_held_behind_one_that_comes_after_it_is_lost(world: World) -> None:
    held, parked = [one for one in world.said if one.type == "NoticeWanted"][:2]
    world.not_applied(held, parked)
    world.held.append((held, "behind"))
    world.parked.append((parked, "schema"))
    assert (await world.prove()).figures() == HEALTHY | {"lost": 1}


async def test_a_parked_impostor_excuses_nobody(world: World) -> None:
    lost = world.find("NoticeSent")
    world.not_applied(lost)
    world.parked.append((lost.again(ce_id=uuid4()), "identity-conflict"))
    assert (await world.prove()).figures() == HEALTHY | {"lost": 1}


async def test_a_parked_submission_is_not_lost(world: World) -> None:
    dossier = uuid4()
    world.submitted.append(dossier)
    submitted = world.say(SUBMISSIONS, dossier, "DossierSubmitted")
    world.not_applied(submitted)
    world.parked.append((submitted, "rule"))
    assert (await world.prove()).figures() == HEALTHY


async def test_a_discarded_event_is_listed_and_does_not_excuse_what_stands_behind_it(world: World) -> None:
    discarded, behind = [one for one in world.said if one.type == "NoticeWanted"][:2]
    world.not_applied(discarded)
    world.parked.append((discarded, "discarded: schema"))
    report = await world.prove()
    assert report.figures() == HEALTHY
    assert report.as_json()["set_aside"]["discarded"] == 1
    world.not_applied(behind)
    world.held.append((behind, "behind"))
    assert (await world.prove_again()).figures() == HEALTHY | {"lost": 1}
