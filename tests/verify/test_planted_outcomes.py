"""What was wanted of registry and channels, and what was said to have become of it: each step left out is a loss."""

from __future__ import annotations

import pytest

from tests.verify.world import HEALTHY, NOTICES, WANTED, World, kinds


@pytest.mark.parametrize("type", ["IdNumberWanted", "IdCheckWanted"])
async def test_a_wanted_request_without_a_row_is_lost(world: World, type: str) -> None:
    world.say(WANTED, world.submitted[0], type)
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"request-without-row": 1}


async def test_a_wanted_request_that_is_parked_or_on_its_way_is_not_lost(world: World) -> None:
    parked, sent = (world.say(WANTED, dossier, "IdNumberWanted") for dossier in world.submitted[:2])
    world.not_applied(parked, sent)
    world.parked.append((parked, "tampered"))
    world.just_sent.append(sent)
    assert (await world.prove()).figures() == HEALTHY


async def test_a_number_found_and_never_told_is_lost(world: World) -> None:
    world.unsay(world.find("IdNumberFound"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"answer-never-told": 1}
    assert report.as_json()["details"]["lost"][0]["dossier"] == str(world.submitted[0])


SETTLED = [
    ("IdNumberWanted", "refused", "IdNumberRefused"),
    ("IdNumberWanted", "duplicate", "IdNumberDuplicateSuspected"),
    ("IdCheckWanted", "matched", "IdCheckAnswered"),
    ("IdCheckWanted", "mismatched", "IdCheckAnswered"),
    ("IdCheckWanted", "refused", "IdCheckAnswered"),
]


@pytest.mark.parametrize(("type", "state", "answer"), SETTLED)
async def test_a_request_settled_and_never_told_is_lost(world: World, type: str, state: str, answer: str) -> None:
    world.ask(type, state, answer)
    assert (await world.prove()).figures() == HEALTHY
    world.unsay(world.find(answer))
    report = await world.prove_again()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"answer-never-told": 1}


async def test_a_request_stopped_because_nobody_wanted_it_has_nothing_to_tell(world: World) -> None:
    world.ask("IdNumberWanted", "stopped")
    assert (await world.prove()).figures() == HEALTHY


async def test_a_notice_sent_and_never_told_is_lost(world: World) -> None:
    world.unsay(world.find("NoticeSent"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"notice-never-told": 1}


@pytest.mark.parametrize(("state", "answer"), [("failed", "NoticeFailed"), ("listed", "NoticeSent")])
async def test_a_notice_failed_or_listed_and_never_told_is_lost(world: World, state: str, answer: str) -> None:
    notice, dossier, _, _ = world.notices[0]
    world.notices.append((notice, dossier, "call_list", state))
    said = world.say(NOTICES, dossier, answer, notice_id=str(notice), channel="call_list")
    assert (await world.prove()).figures() == HEALTHY
    world.unsay(said)
    report = await world.prove_again()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"notice-never-told": 1}
