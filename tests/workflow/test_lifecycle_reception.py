"""From submission to reception: which dossier is received at once, which waits, and what the counter may decide."""

from __future__ import annotations

from datetime import date

import pytest

from services.workflow.lifecycle import OUTCOMES
from services.workflow.procedures import shipped
from shared.contract import events
from shared.refusals import Refused
from tests.workflow.lifecycle_scenes import BIRTH, BUSINESS, COPIES, LAND, Centre, at, rules


@pytest.mark.parametrize(
    ("channel", "caller", "helper", "at_once"),
    [
        ("direct", "counter", None, True),
        ("online", "counter", "officer", True),
        ("online", "counter", "relative", False),
        ("online", "system", "officer", False),
        ("online", "system", None, False),
        ("post", "counter", "postal_clerk", False),
        ("direct", "system", None, False),
    ],
)
def test_only_a_dossier_that_an_officer_files_at_the_counter_is_received_at_once(
    channel: str, caller: str, helper: str | None, at_once: bool
) -> None:
    centre = Centre(rules(BIRTH))
    centre.submit(channel=channel, caller_role=caller, assisted_by_kind=helper)
    assert centre.public[0] == "DossierRecorded"
    assert centre.dossier.at_once is at_once
    if at_once:
        assert centre.public[1] == "DossierReceived"
        assert centre.statuses == [1, 2, 4]
    else:
        assert centre.public == ["DossierRecorded"]
        assert centre.last(events.DossierRecorded).waiting_for == "reception"
        assert centre.open_stages == [("reception", "counter")]
        assert (centre.dossier.dossier_code, centre.dossier.due_office_at) == (None, None)


def test_reception_fixes_code_due_date_and_the_version_in_force() -> None:
    centre = Centre(rules(BIRTH))
    centre.submit(caller_role="system", channel="online")
    centre.in_force = rules(BIRTH, version=2, time={"working_days": 3})
    centre.complete("reception")
    received = centre.last(events.DossierReceived)
    assert received.dossier_code == "H44.XXX-250827-0001"
    assert received.due_at == at("2025-09-03T17:00")
    assert (received.procedure_version, centre.dossier.procedure_version) == (2, 2)
    centre.in_force = rules(BIRTH, version=3)
    centre.forward("appraisal", "approval")
    assert centre.last(events.StepCompleted).procedure_version == 2


def test_a_dossier_filed_before_three_and_read_later_is_received_when_it_was_filed() -> None:
    centre = Centre(rules(BIRTH), now=at("2025-08-27T15:20"))
    centre.submit(office_at=at("2025-08-27T14:50"))
    assert centre.dossier.received_office_at == at("2025-08-27T14:50")
    assert centre.dossier.due_office_at == at("2025-08-27T17:00")


def test_a_dossier_that_waited_at_reception_is_received_when_the_officer_accepts_it() -> None:
    centre = Centre(rules(BIRTH), now=at("2025-08-27T14:50"))
    centre.submit(caller_role="system", channel="online")
    centre.now = at("2025-08-27T15:20")
    centre.complete("reception")
    assert centre.dossier.due_office_at == at("2025-08-28T17:00")


def test_not_accepting_ends_a_dossier_without_a_code_and_needs_a_reason() -> None:
    centre = Centre(rules(BIRTH))
    centre.submit(caller_role="system", channel="online")
    with pytest.raises(Refused, match="note-required"):
        centre.complete("reception", "not_accepted")
    centre.complete("reception", "not_accepted", note="Không đúng thẩm quyền")
    assert centre.statuses == [1, 3]
    assert centre.dossier.dossier_code is None
    assert centre.dossier.tasks == []
    assert centre.notices == ["not_accepted"]
    assert not centre.codes
    assert centre.dossier.notes[0]["note"] == "Không đúng thẩm quyền"
    assert "thẩm quyền" not in "".join(event.fact.model_dump_json() for event in centre.emitted)


def test_a_supplement_asked_before_reception_starts_no_clock_and_gives_no_code() -> None:
    centre = Centre(rules(BIRTH))
    centre.submit(caller_role="system", channel="online")
    centre.complete("reception", "ask_supplement", note="Thiếu giấy chứng sinh")
    assert centre.statuses == [1, 5]
    assert centre.open_stages == []
    centre.supplement()
    assert "ClockRestarted" not in centre.public
    assert centre.open_stages == [("reception", "counter")]
    assert centre.dossier.national_status == 1, "it waits at reception again, and everybody can see it"
    started = centre.last(events.StepStarted)
    assert (started.stage, started.task_id) == ("reception", centre.task("reception").task_id)
    assert centre.notices == ["supplement_requested", "supplement_received"]
    with pytest.raises(Refused, match="supplement-already-asked"):
        centre.complete("reception", "ask_supplement", note="Thiếu nữa")
    centre.complete("reception")
    assert centre.statuses == [1, 5, 1, 2, 4]
    assert centre.codes == {date(2025, 8, 27): 1}


def test_a_same_visit_procedure_has_one_task_that_signs_resolves_and_returns() -> None:
    centre = Centre(rules(COPIES))
    centre.submit(copies=3, pages=4)
    assert centre.open_stages == [("return", "counter")]
    assert centre.dossier.fee == 3 * (2 * 2_000 + 2 * 1_000)
    emitted = centre.complete("return", holder="lan")
    assert emitted == ["ResultSigned", "DossierResolved", "ResultReturned", "NoticeWanted"]
    assert centre.statuses == [1, 2, 9, 10]
    assert centre.dossier.state == "returned"
    assert centre.notices == ["returned"]
    assert centre.dossier.result == {
        "number": centre.dossier.dossier_code,
        "book": None,
        "signed_by": "lan",
        "signed_as": centre.procedure.signed_as,
        "signature": "digital",
    }


def test_a_same_visit_keeps_the_result_that_was_set_before() -> None:
    centre = Centre(rules(COPIES))
    centre.submit()
    centre.dossier.result = {"number": "15/2025", "signed_by": "Nguyễn Văn A", "signed_as": "KT.", "signature": "wet"}
    centre.complete("return")
    assert centre.dossier.result["number"] == "15/2025"
    assert centre.dossier.result["signed_by"] == "Nguyễn Văn A"
    assert centre.last(events.ResultSigned).signed_as == "KT."


def test_a_record_only_procedure_records_a_dossier_and_does_not_receive_it() -> None:
    centre = Centre(rules(BUSINESS))
    centre.submit(open_for_reception=False)
    assert centre.public == ["DossierRecorded"]
    assert centre.last(events.DossierRecorded).waiting_for == "record_only"
    assert (centre.dossier.state, centre.dossier.tasks) == ("recorded", [])
    assert (centre.dossier.due_office_at, centre.dossier.dossier_code) == (None, None)
    assert centre.notices == ["recorded"]


def test_opening_a_procedure_receives_recorded_dossiers_on_that_day() -> None:
    centre = Centre(rules(BUSINESS), blanks=1)
    centre.submit(open_for_reception=False)
    centre.now = at("2025-09-03T08:00")
    centre.open_procedure()
    assert centre.dossier.received_office_at == at("2025-09-03T08:00")
    assert centre.dossier.dossier_code == "H44.XXX-250903-0001"
    assert centre.open_procedure() == []
    centre.forward("appraisal", "approval", "issuing", "return")
    assert centre.dossier.national_status == 10


def test_opening_a_procedure_sends_online_submissions_to_reception_and_notifies_the_citizens() -> None:
    centre = Centre(rules(BUSINESS))
    centre.submit(open_for_reception=False, caller_role="system", channel="online")
    assert centre.open_procedure() == ["StepStarted", "NoticeWanted"]
    assert centre.open_stages == [("reception", "counter")]
    assert centre.last(events.StepStarted).task_id == centre.task("reception").task_id
    assert centre.statuses == [1, 1]
    assert centre.notices == ["recorded", "opened"]


def test_a_recorded_dossier_can_be_withdrawn_and_is_not_received_later() -> None:
    centre = Centre(rules(BUSINESS))
    centre.submit(open_for_reception=False)
    centre.withdraw()
    assert centre.statuses == [1, 7]
    assert centre.open_procedure() == []


def test_every_kind_of_task_has_one_forward_outcome_that_needs_no_note() -> None:
    for kind, outcomes in OUTCOMES.items():
        forward = [outcome for outcome in outcomes if outcome.forward]
        assert len(forward) == (kind != "awaited"), kind
        assert not any(outcome.note_required for outcome in forward)
        assert len({outcome.code for outcome in outcomes}) == len(outcomes)
        for outcome in outcomes:
            assert set(outcome.shown()) == {"code", "label", "note_required", "fields", "forward"}
            assert set(outcome.shown()["label"]) == {"vi", "en"}


@pytest.mark.parametrize("code", sorted(shipped()))
@pytest.mark.parametrize("how", [{}, {"caller_role": "system", "channel": "online"}])
def test_completing_every_task_forward_returns_the_result(code: str, how: dict[str, str]) -> None:
    centre = Centre(rules(code), blanks=1, round_trip=True)
    centre.submit(**how)
    if how:
        centre.complete("reception")
    centre.identity_checked("match")
    if centre.dossier.number_key:
        centre.number_found()
    while centre.human_tasks:
        centre.complete(centre.human_tasks[0].stage)
    assert centre.dossier.national_status == 10
    assert centre.public[-1] == "ResultReturned"
    assert centre.dossier.tasks == []
    assert sum(centre.codes.values()) == 1


def test_a_required_check_and_a_mismatch_still_lead_forward() -> None:
    centre = Centre(rules(LAND), blanks=1)
    centre.submit()
    centre.identity_checked("mismatch")
    while centre.human_tasks:
        centre.complete(centre.human_tasks[0].stage)
    assert centre.dossier.national_status == 10
