"""Ends of a dossier: a withdrawal against a completion, and a dossier that has ended stays ended."""

from __future__ import annotations

import pytest

from shared.contract import events
from tests.workflow.lifecycle_scenes import BIRTH, COPIES, Centre, rules

LINKED_DEATH = "2.002913"


def received() -> Centre:
    centre = Centre(rules(LINKED_DEATH))
    centre.submit()
    return centre


def returned() -> Centre:
    centre = received()
    centre.forward("appraisal", "approval", "issuing", "return")
    return centre


def withdrawn() -> Centre:
    centre = received()
    centre.withdraw()
    return centre


def refused() -> Centre:
    centre = received()
    centre.complete("appraisal", "refuse", note="x")
    return centre


def not_accepted() -> Centre:
    centre = Centre(rules(LINKED_DEATH))
    centre.submit(caller_role="system", channel="online")
    centre.complete("reception", "not_accepted", note="x")
    return centre


ENDS = {"returned": returned, "withdrawn": withdrawn, "refused": refused, "not_accepted": not_accepted}


def test_a_withdrawal_closes_every_task_and_notifies_the_citizen() -> None:
    centre = received()
    assert centre.withdraw() == ["DossierWithdrawn", "NoticeWanted"]
    assert centre.statuses == [1, 2, 4, 7]
    assert centre.dossier.tasks == []
    assert {task.outcome for task in centre.closed} == {"withdrawn"}
    assert centre.notices[-1] == "withdrawn"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("request_", ["withdraw", "supplement"])
def test_a_closed_dossier_cannot_be_reopened(end: str, request_: str) -> None:
    centre = ENDS[end]()
    before = (centre.dossier.state, centre.statuses)
    assert getattr(centre, request_)() == ["RequestDeclined", "NoticeWanted"]
    declined = centre.last(events.RequestDeclined)
    assert (declined.request, declined.reason) == (
        {"withdraw": "withdrawal", "supplement": "supplement"}[request_],
        "already-ended",
    )
    assert centre.open_procedure() == []
    assert (centre.dossier.state, centre.statuses) == before
    assert centre.dossier.tasks == []


def test_a_withdrawal_that_comes_after_the_decision_is_declined() -> None:
    centre = received()
    centre.forward("appraisal", "approval", "issuing")
    assert centre.withdraw() == ["RequestDeclined", "NoticeWanted"]
    assert centre.last(events.RequestDeclined).reason == "already-resolved"
    centre.complete("return")
    assert centre.statuses == [1, 2, 4, 9, 10]


def test_a_withdrawal_that_comes_first_leaves_nothing_to_complete() -> None:
    centre = received()
    task = centre.task("appraisal")
    centre.withdraw()
    assert centre.dossier.find_task(task.task_id) is None


def test_a_dossier_can_be_withdrawn_while_a_supplement_or_a_number_is_awaited() -> None:
    centre = received()
    centre.complete("appraisal", "ask_supplement", note="x")
    centre.withdraw()
    assert centre.statuses == [1, 2, 4, 5, 7]
    assert centre.supplement()[0] == "RequestDeclined"
    held = Centre(rules(BIRTH))
    held.submit()
    held.forward("appraisal", "approval")
    held.withdraw()
    assert held.statuses == [1, 2, 4, 7]


def test_a_same_visit_can_be_withdrawn_or_refused_before_it_is_handed_over() -> None:
    centre = Centre(rules(COPIES))
    centre.submit()
    centre.withdraw()
    assert centre.statuses == [1, 2, 7]
    centre = Centre(rules(COPIES))
    centre.submit()
    centre.complete("return", "refuse", note="Bản chính bị tẩy xoá")
    assert centre.statuses == [1, 2, centre.procedure.refusal_status]


def test_a_stored_component_changes_no_decision() -> None:
    centre = received()
    stored = events.ComponentStored(office_at=centre.now, component_code="to_khai", sha256="0" * 64, size=1)
    assert centre.receive(stored) == []


def test_every_public_fact_has_the_procedure_and_no_personal_data() -> None:
    for end in ENDS.values():
        centre = end()
        for event in centre.emitted:
            if isinstance(event.fact, events.LifecycleFact):
                assert event.fact.procedure_code == LINKED_DEATH
                assert event.fact.receiving_agency == "H44.XXX"
                assert not any(name.startswith("sealed") for name in type(event.fact).model_fields)


def test_every_notice_has_the_sealed_contact_the_code_and_the_status() -> None:
    centre = returned()
    notices = [event.fact for event in centre.emitted if isinstance(event.fact, events.NoticeWanted)]
    assert [(n.kind, n.cause, n.national_status) for n in notices] == [
        ("received", "DossierReceived", 2),
        ("ready", "DossierResolved", 9),
    ]
    assert {n.dossier_code for n in notices} == {centre.dossier.dossier_code}
    assert {n.sealed_contact for n in notices} == {"contact"}
