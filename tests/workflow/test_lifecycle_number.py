"""The number of a birth and the identity check: they come beside the steps, early, late, in doubt or never."""

from __future__ import annotations

from uuid import UUID

import pytest

from shared.contract import events
from shared.refusals import Refused
from tests.workflow.lifecycle_scenes import BIRTH, LAND, Centre, at, rules, steps


def birth() -> Centre:
    centre = Centre(rules(BIRTH))
    centre.submit()
    return centre


def held_birth() -> Centre:
    """Signed and numbered, the return held for the number."""
    centre = birth()
    centre.forward("appraisal", "approval", "issuing")
    return centre


def returned_without_number() -> Centre:
    centre = held_birth()
    centre.hold_time_comes()
    centre.forward("id_number", "return")
    return centre


def test_the_number_is_requested_at_reception_beside_the_first_step() -> None:
    centre = birth()
    wanted = centre.last(events.IdNumberWanted)
    assert next(event.ce_id for event in centre.emitted if event.fact is wanted) == centre.number_key
    assert wanted.sealed_subject == "subject"
    assert "IdNumberRequested" in centre.public
    assert centre.open_stages == [("identity_check", None), ("id_number", None), ("appraisal", "specialist")]


def test_a_number_that_comes_early_holds_no_step() -> None:
    centre = birth()
    assert centre.number_found() == ["IdNumberIssued"]
    centre.forward("appraisal", "approval", "issuing", "return")
    assert centre.statuses == [1, 2, 4, 9, 10]
    assert centre.last(events.ResultReturned).without_number is False


def test_a_missing_number_holds_the_return_without_a_task_and_without_a_notice() -> None:
    centre = held_birth()
    assert centre.human_tasks == []
    assert centre.dossier.state == "resolved"
    assert centre.notices == ["received"]
    assert centre.timers == {"number_hold": at("2025-08-27T16:30")}
    centre.number_found()
    assert [task.stage for task in centre.human_tasks] == ["return"]
    assert centre.timers == {}
    assert centre.notices == ["received", "ready"]


def test_at_the_hold_time_the_signatory_is_asked_and_may_return_the_result_without_the_number() -> None:
    centre = held_birth()
    centre.hold_time_comes()
    assert [(task.stage, task.role) for task in centre.human_tasks] == [("id_number", "signatory")]
    assert centre.dossier.national_status == 9
    centre.complete("id_number")
    assert centre.notices == ["received", "ready_without_number"]
    centre.complete("return")
    assert centre.last(events.ResultReturned).without_number is True
    assert centre.dossier.state == "returned"


def test_time_alone_never_returns_a_result() -> None:
    centre = held_birth()
    centre.hold_time_comes()
    centre.pass_days(30)
    assert "ResultReturned" not in centre.public
    assert centre.open_stages == [("identity_check", None), ("id_number", None), ("id_number", "signatory")]


def test_the_signatory_may_wait_until_the_same_hour_of_the_next_working_day() -> None:
    centre = Centre(rules(BIRTH), now=at("2025-08-29T09:00"))
    centre.submit()
    centre.forward("appraisal", "approval", "issuing")
    centre.hold_time_comes()
    centre.complete("id_number", "wait")
    assert centre.human_tasks == []
    assert centre.timers == {"number_hold": at("2025-09-03T16:30")}, "a weekend and two holidays lie between"
    centre.hold_time_comes()
    assert [task.role for task in centre.human_tasks] == ["signatory"]


def test_a_number_that_comes_while_the_signatory_is_asked_frees_the_return() -> None:
    centre = held_birth()
    centre.hold_time_comes()
    centre.number_found()
    assert [task.stage for task in centre.human_tasks] == ["return"]
    centre.complete("return")
    assert centre.last(events.ResultReturned).without_number is False


def test_a_hold_time_before_the_return_is_reached_opens_no_task_yet() -> None:
    centre = birth()
    centre.now = at("2025-08-27T16:45")
    centre.forward("appraisal", "approval")
    assert [task.stage for task in centre.human_tasks] == ["issuing"]
    centre.complete("issuing")
    assert [(task.stage, task.role) for task in centre.human_tasks] == [("id_number", "signatory")]


@pytest.mark.parametrize("done", [(), ("appraisal", "approval")])
def test_a_hold_time_that_comes_while_another_step_is_open_changes_nothing(done: tuple[str, ...]) -> None:
    centre = birth()
    centre.forward(*done)
    before = centre.dossier.to_json()
    centre.timers["number_hold"] = at("2025-08-27T16:30")
    assert centre.hold_time_comes() == []
    assert centre.dossier.to_json() == before


def test_a_hold_time_that_comes_after_the_number_changes_nothing() -> None:
    centre = held_birth()
    centre.number_found()
    centre.timers["number_hold"] = at("2025-08-27T16:30")
    assert centre.hold_time_comes() == []
    assert [task.stage for task in centre.human_tasks] == ["return"]


def test_a_late_number_is_entered_after_the_return_and_changes_no_status() -> None:
    centre = returned_without_number()
    assert centre.open_stages == [("id_number", None)]
    centre.pass_days(2)
    assert centre.number_found() == ["IdNumberIssued", "NoticeWanted"]
    assert centre.last(events.IdNumberIssued).national_status is None
    assert [(task.stage, task.role) for task in centre.human_tasks] == [("id_number", "records_clerk")]
    centre.complete("id_number", "entered_reissued")
    assert centre.dossier.tasks == []
    assert centre.statuses == [1, 2, 4, 9, 10]


def test_a_number_is_published_once_and_only_for_the_current_request() -> None:
    centre = birth()
    assert centre.number_found(UUID(int=999)) == []
    centre.number_found()
    assert centre.number_found() == []
    assert centre.number_delayed() == []
    assert centre.number_refused() == []
    assert centre.duplicate_suspected() == []


def test_a_slow_registry_is_published_once() -> None:
    centre = birth()
    assert centre.number_delayed() == ["IdNumberDelayed"]
    assert centre.number_delayed() == []
    assert centre.last(events.IdNumberDelayed).since == at("2025-08-27T09:00")


def test_a_suspected_duplicate_opens_a_task_and_sends_no_second_request() -> None:
    centre = birth()
    centre.duplicate_suspected()
    key = centre.number_key
    with pytest.raises(Refused, match="request-still-open"):
        centre.complete("id_number", "ask_again")
    centre.complete("id_number")
    assert centre.number_key == key
    assert centre.number_found() == ["IdNumberIssued"]


def test_a_duplicate_suspected_again_after_its_task_was_completed_opens_another_task() -> None:
    centre = birth()
    centre.duplicate_suspected()
    assert centre.duplicate_suspected() == []
    assert [task.stage for task in centre.human_tasks] == ["appraisal", "id_number"], "one is enough while it is open"
    centre.complete("id_number")
    centre.duplicate_suspected()
    assert [task.stage for task in centre.human_tasks] == ["appraisal", "id_number"]


def test_a_number_that_comes_closes_the_task_of_a_suspected_duplicate() -> None:
    centre = birth()
    centre.duplicate_suspected()
    centre.number_found()
    assert [task.stage for task in centre.human_tasks] == ["appraisal"]


def test_only_after_a_rejection_may_a_request_with_a_new_key_be_made() -> None:
    centre = birth()
    first = centre.number_key
    centre.number_refused()
    assert centre.dossier.find_open_task("id_number", machine=True) is None
    assert [(task.stage, task.role) for task in centre.human_tasks][-1] == ("id_number", "specialist")
    centre.complete("id_number", "ask_again")
    assert centre.number_key != first
    assert centre.public.count("IdNumberRequested") == 2
    assert centre.number_found(first) == []
    assert centre.number_found() == ["IdNumberIssued"]


def test_a_rejected_request_still_holds_the_return_until_the_signatory_decides() -> None:
    centre = birth()
    centre.number_refused()
    centre.forward("id_number", "appraisal", "approval", "issuing")
    assert centre.human_tasks == []
    centre.hold_time_comes()
    centre.forward("id_number", "return")
    assert centre.last(events.ResultReturned).without_number is True


@pytest.mark.parametrize("answer", ["duplicate_suspected", "number_refused"])
def test_a_doubtful_number_after_the_return_opens_a_task(answer: str) -> None:
    centre = returned_without_number()
    getattr(centre, answer)()
    assert [(task.stage, task.role) for task in centre.human_tasks] == [("id_number", "specialist")]
    if answer == "number_refused":
        assert centre.complete("id_number", "ask_again") == ["IdNumberWanted"], (
            "a request after the end is no public fact"
        )
    assert centre.number_found() == ["IdNumberIssued", "NoticeWanted"]


@pytest.mark.parametrize("how", ["withdraw", "refuse"])
def test_an_end_withdraws_the_request_and_a_number_that_comes_anyway_is_published(how: str) -> None:
    centre = birth()
    centre.number_delayed()
    if how == "withdraw":
        centre.withdraw()
    else:
        centre.complete("appraisal", "refuse", note="x")
    assert centre.last(events.IdNumberNoLongerWanted).request_key == centre.number_key
    before = list(centre.statuses)
    assert centre.number_found() == ["IdNumberIssued"]
    assert centre.dossier.tasks == []
    assert centre.statuses == before


def test_a_supplement_moves_the_hold_time_with_the_due_day() -> None:
    centre = birth()
    centre.complete("appraisal", "ask_supplement", note="x")
    centre.now = at("2025-08-28T10:00")
    centre.supplement()
    centre.forward("appraisal", "approval", "issuing")
    assert centre.timers == {"number_hold": at("2025-08-28T16:30")}


@pytest.mark.parametrize(
    ("handed_in", "due"), [("2025-08-28T14:50", "2025-08-28T17:00"), ("2025-08-28T15:10", "2025-08-29T17:00")]
)
def test_a_clock_restarts_from_when_the_supplement_was_handed_in_however_late_it_is_read(
    handed_in: str, due: str
) -> None:
    centre = birth()
    centre.complete("appraisal", "ask_supplement", note="x")
    centre.now = at("2025-08-29T16:00")
    centre.receive(events.SupplementSubmitted(office_at=at(handed_in), components=()))
    assert centre.last(events.ClockRestarted).due_at == at(due)
    assert centre.dossier.hold_until == at(due).replace(hour=16, minute=30)


def test_a_clock_does_not_restart_from_before_the_supplement_was_asked_for() -> None:
    centre = birth()
    centre.now = at("2025-08-27T15:30")
    centre.complete("appraisal", "ask_supplement", note="x")
    centre.receive(events.SupplementSubmitted(office_at=at("2025-08-27T14:50"), components=()))
    assert centre.dossier.due_office_at == at("2025-08-28T17:00")


def test_an_identity_check_beside_blocks_nothing() -> None:
    centre = birth()
    assert centre.last(events.IdCheckWanted).sealed_person == "person"
    centre.number_found()
    centre.forward("appraisal", "approval", "issuing", "return")
    assert centre.dossier.national_status == 10
    assert centre.dossier.tasks == []
    assert centre.identity_checked("mismatch") == []
    assert centre.dossier.tasks == []


def test_without_a_personal_id_no_identity_check_is_requested() -> None:
    centre = Centre(rules(BIRTH))
    centre.submit(has_personal_id=False)
    assert "identity_check" not in dict(centre.open_stages)


@pytest.mark.parametrize("answer", ["mismatch", "rejected"])
def test_any_answer_but_a_match_opens_a_task_for_a_specialist(answer: str) -> None:
    centre = birth()
    centre.identity_checked(answer)
    assert [task.stage for task in centre.human_tasks] == ["appraisal", "identity_check"]
    assert centre.identity_checked("match") == [], "answered once"
    centre.complete("identity_check")
    assert [task.stage for task in centre.human_tasks] == ["appraisal"]


@pytest.mark.parametrize("answer", ["match", "mismatch"])
def test_a_required_check_holds_approval_and_nothing_before_it(answer: str) -> None:
    centre = Centre(rules(LAND, financial_obligation=False, steps=steps("appraisal", "approval", "issuing", "return")))
    centre.submit()
    centre.complete("appraisal")
    assert centre.human_tasks == []
    centre.identity_checked(answer)
    if answer == "mismatch":
        assert [task.stage for task in centre.human_tasks] == ["identity_check"]
        centre.complete("identity_check")
    assert [task.stage for task in centre.human_tasks] == ["approval"]


def test_a_required_check_frees_an_approval_that_is_the_first_step() -> None:
    centre = Centre(rules(BIRTH, id_number=False, identity_check="required", steps=steps("approval", "return")))
    centre.submit()
    assert (centre.human_tasks, centre.statuses) == ([], [1, 2])
    centre.identity_checked("match")
    centre.forward("approval", "return")
    assert centre.statuses == [1, 2, 4, 9, 10]


def test_a_payment_that_moves_the_due_day_moves_the_hold_time_with_it() -> None:
    centre = Centre(rules(BIRTH, financial_obligation=True))
    centre.submit(has_personal_id=False)
    centre.complete("appraisal")
    centre.pass_days(1)
    centre.complete("financial_obligation")
    assert centre.dossier.due_office_at == at("2025-08-28T17:00")
    assert centre.dossier.hold_until == at("2025-08-28T16:30")
