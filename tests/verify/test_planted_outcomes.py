"""Registry requests and notices, and the events about their outcomes: each missing step is a loss."""

from __future__ import annotations

import pytest

from tests.verify.world import HEALTHY, NOTICES, WANTED, Notice, World, kinds


@pytest.mark.parametrize("type", ["IdNumberWanted", "IdCheckWanted"])
async def test_a_wanted_request_without_a_row_is_lost(world: World, type: str) -> None:
    world.emit(WANTED, world.submitted[0], type)
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"request-without-row": 1}


async def test_a_wanted_request_that_is_parked_or_in_flight_is_not_lost(world: World) -> None:
    parked, sent = (world.emit(WANTED, dossier, "IdNumberWanted") for dossier in world.submitted[:2])
    world.not_applied(parked, sent)
    world.parked.append((parked, "tampered"))
    world.just_sent.append(sent)
    assert (await world.prove()).figures() == HEALTHY


async def test_a_number_found_without_its_event_is_lost(world: World) -> None:
    world.remove_event(world.find("IdNumberFound"))
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
async def test_a_settled_request_without_its_event_is_lost(world: World, type: str, state: str, answer: str) -> None:
    world.request(type, state, answer)
    assert (await world.prove()).figures() == HEALTHY
    world.remove_event(world.find(answer))
    report = await world.prove_again()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"answer-never-told": 1}


async def test_a_request_stopped_because_it_is_no_longer_wanted_needs_no_event(world: World) -> None:
    world.request("IdNumberWanted", "stopped")
    assert (await world.prove()).figures() == HEALTHY


async def test_a_notice_sent_without_its_event_is_lost(world: World) -> None:
    world.remove_event(world.find("NoticeSent"))
    report = await world.prove()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"notice-never-told": 1}


@pytest.mark.parametrize(("state", "answer"), [("failed", "NoticeFailed"), ("listed", "NoticeSent")])
async def test_a_notice_failed_or_listed_without_its_event_is_lost(world: World, state: str, answer: str) -> None:
    notice, dossier, _, _ = world.notices[0]
    world.notices.append(Notice(notice, dossier, "call_list", state))
    event = world.emit(NOTICES, dossier, answer, notice_id=str(notice), channel="call_list")
    assert (await world.prove()).figures() == HEALTHY
    world.remove_event(event)
    report = await world.prove_again()
    assert report.figures() == HEALTHY | {"lost": 1}
    assert kinds(report, "lost") == {"notice-never-told": 1}
