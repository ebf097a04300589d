"""The officers' steps: signing, sending back, refusing, payments, supplements, blanks, and who may do what."""

from __future__ import annotations

import pytest

from services.workflow import lifecycle
from shared.contract import events
from shared.refusals import Refused
from tests.workflow.lifecycle_scenes import BIRTH, LAND, Centre, at, rules, steps

DEATH = "1.000656"
LINKED_DEATH = "2.002913"


def received(code: str = LINKED_DEATH, blanks: int = 0, **changed: object) -> Centre:
    centre = Centre(rules(code, **changed), blanks=blanks)
    centre.submit()
    return centre


def test_one_open_step_at_a_time_from_appraisal_to_return() -> None:
    centre = received()
    for stage in ("appraisal", "approval", "issuing", "return"):
        assert [task.stage for task in centre.human_tasks] == [stage]
        centre.complete(stage)
    assert centre.statuses == [1, 2, 4, 9, 10]
    assert [name for name in centre.public if name not in {"StepStarted", "StepCompleted"}] == [
        "DossierRecorded", "DossierReceived", "ResultSigned", "DossierResolved", "ResultReturned",
    ]  # fmt: skip
    assert centre.public.count("StepStarted") == centre.public.count("StepCompleted") == 4
    assert centre.notices == ["received", "ready"]


def test_the_citizen_is_notified_that_the_result_is_ready_before_the_hand_over() -> None:
    centre = received(steps=steps("appraisal", "approval", "return"))
    centre.forward("appraisal", "approval")
    assert centre.dossier.state == "resolved"
    assert centre.notices == ["received", "ready"]
    assert centre.dossier.result is not None
    assert centre.dossier.result["number"] == centre.dossier.dossier_code


def test_a_task_is_due_by_its_own_target_but_never_after_the_legal_due_date() -> None:
    centre = received(steps=steps("appraisal", "return"), time={"working_days": 3})
    assert centre.task("appraisal").due_office_at == at("2025-08-27T15:00"), "4 working hours, 2 hours of lunch"
    centre = received(DEATH)
    centre.now = at("2025-08-27T16:00")
    centre.complete("appraisal")
    assert centre.task("approval").due_office_at == centre.dossier.due_office_at == at("2025-08-27T17:00")


def test_after_a_step_is_sent_back_the_dossier_continues_from_there() -> None:
    centre = received()
    centre.complete("appraisal")
    emitted = centre.complete("approval", "send_back", note="Sai ngày sinh", holder="chu tich")
    assert emitted == ["StepReturned", "StepStarted"]
    assert centre.last(events.StepReturned).back_to == "appraisal"
    assert [task.stage for task in centre.human_tasks] == ["appraisal"]
    assert centre.dossier.notes == [
        {"stage": "approval", "outcome": "send_back", "by": "chu tich", "office_at": "2025-08-27T09:00:00+07:00",
         "note": "Sai ngày sinh"}
    ]  # fmt: skip
    centre.forward("appraisal", "approval", "issuing", "return")
    assert centre.statuses == [1, 2, 4, 9, 10]


def test_when_a_result_is_sent_back_to_signing_the_earlier_signature_is_void() -> None:
    centre = received()
    centre.complete("appraisal")
    centre.complete("approval", holder="a")
    centre.complete("issuing", "send_back", note="Thiếu dấu")
    centre.complete("approval", holder="b", fields={"signed_as": "KT.", "signature": "wet"})
    assert centre.dossier.result == {"signed_by": "b", "signed_as": "KT.", "signature": "wet"} | {
        name: value for name, value in (centre.dossier.result or {}).items() if name in ("number", "book")
    }


def test_the_first_step_cannot_be_sent_back() -> None:
    centre = received(steps=steps("approval", "return"), identity_check="none")
    with pytest.raises(Refused, match="no-step-before"):
        centre.complete("approval", "send_back", note="x")


def test_a_refusal_after_appraisal_has_the_procedures_status_and_ends_everything() -> None:
    centre = received(BIRTH)
    centre.complete("appraisal")
    centre.complete("approval", "refuse", note="Không đủ điều kiện")
    assert centre.statuses == [1, 2, 4, centre.procedure.refusal_status]
    assert centre.dossier.state == "refused"
    assert centre.dossier.tasks == []
    assert centre.last(events.IdNumberNoLongerWanted).request_key == centre.number_key
    assert centre.notices == ["received", "refused"]


def test_a_resolved_dossier_cannot_be_refused() -> None:
    centre = received(identity_check="beside")
    centre.identity_checked("mismatch")
    centre.forward("appraisal", "approval", "issuing")
    with pytest.raises(Refused, match="already-ended"):
        centre.complete("identity_check", "refuse", note="Sai người")
    centre.complete("identity_check")
    centre.complete("return")
    assert centre.statuses == [1, 2, 4, 9, 10]


def test_a_supplement_is_asked_once_and_the_time_starts_again() -> None:
    centre = received()
    first_due = centre.dossier.due_office_at
    emitted = centre.complete("appraisal", "ask_supplement", note="Thiếu giấy")
    assert emitted == ["SupplementRequested", "ClockPaused", "NoticeWanted"]
    assert centre.human_tasks == []
    centre.now = at("2025-09-03T10:00")
    assert centre.supplement() == ["ClockRestarted", "NoticeWanted", "StepStarted"]
    restarted = centre.last(events.ClockRestarted)
    assert restarted.due_at == at("2025-09-08T17:00")
    assert first_due is not None
    assert restarted.due_at > first_due
    assert (centre.dossier.paused_office_at, centre.dossier.due_office_at) == (None, restarted.due_at)
    with pytest.raises(Refused, match="supplement-already-asked"):
        centre.complete("appraisal", "ask_supplement", note="Lại thiếu")
    centre.forward("appraisal", "approval", "issuing", "return")
    assert centre.statuses == [1, 2, 4, 5, 4, 9, 10]
    assert sum(centre.codes.values()) == 1


def test_a_supplement_names_only_components_of_the_procedure() -> None:
    centre = received()
    code = centre.procedure.components[0].code
    for wrong in (["Nguyễn Văn A"], "text", [3], [code, None]):
        with pytest.raises(Refused, match="unknown-component"):
            centre.complete("appraisal", "ask_supplement", note="x", fields={"components": wrong})
    centre.complete("appraisal", "ask_supplement", note="x", fields={"components": [code, code]})
    assert centre.last(events.SupplementRequested).components == (code,)


def test_a_supplement_that_was_not_asked_for_is_declined_and_the_citizen_notified() -> None:
    centre = received()
    assert centre.supplement() == ["RequestDeclined", "NoticeWanted"]
    assert centre.last(events.RequestDeclined).reason == "not-asked"
    assert centre.notices[-1] == "request_declined"


def test_a_payment_is_awaited_after_appraisal_and_moves_the_due_day() -> None:
    centre = received(LAND, blanks=1)
    centre.identity_checked("match")
    before = centre.dossier.due_office_at
    assert before is not None
    emitted = centre.complete("appraisal")
    assert emitted == ["StepCompleted", "PaymentRequired", "ClockPaused", "NoticeWanted"]
    assert [(task.stage, task.role) for task in centre.human_tasks] == [("financial_obligation", "counter")]
    centre.now = at("2025-09-04T10:00")
    assert centre.complete("financial_obligation")[:2] == ["PaymentMade", "ClockResumed"]
    assert centre.statuses == [1, 2, 4, 6, 4]
    # 28 and 29 August, 3 and 4 September; 1 and 2 September are holidays.
    assert centre.dossier.due_office_at == centre.context().calendar.end_of(
        centre.context().calendar.working_day_after(before.date(), 4)
    )
    assert centre.last(events.ClockResumed).due_at == centre.dossier.due_office_at


def test_a_payment_is_not_asked_for_again_when_a_step_is_sent_back() -> None:
    centre = received(LAND, blanks=1)
    centre.identity_checked("match")
    centre.forward("appraisal", "financial_obligation")
    centre.complete("consultation", "send_back", note="x")
    centre.complete("appraisal")
    assert centre.public.count("PaymentRequired") == 1
    assert [task.stage for task in centre.human_tasks] == ["consultation"]


def test_a_consultation_is_asked_and_answered() -> None:
    centre = received(LAND)
    centre.identity_checked("match")
    centre.forward("appraisal", "financial_obligation")
    assert centre.last(events.ConsultationAsked).answer_due_at == centre.task("consultation").due_office_at
    assert centre.complete("consultation")[:2] == ["ConsultationAnswered", "StepCompleted"]


def test_issuing_shows_that_it_waits_for_a_blank_and_uses_one_up() -> None:
    centre = received(LAND)
    centre.identity_checked("match")
    centre.forward("appraisal", "financial_obligation", "consultation")
    centre.complete("approval", holder="chair")
    task = centre.task("issuing")
    assert task.needs == "blanks:land_certificate"
    with pytest.raises(Refused, match="no-blank"):
        centre.complete("issuing")
    assert centre.task("issuing").version == task.version
    centre.blanks = 1
    centre.complete("issuing")
    assert centre.dossier.result is not None
    assert centre.dossier.result["blank"] == 1000
    assert centre.blanks == 0


def test_with_four_eyes_the_officer_who_appraised_may_not_sign() -> None:
    centre = received(four_eyes=True)
    centre.complete("appraisal", holder="minh")
    with pytest.raises(Refused, match="four-eyes"):
        centre.complete("approval", holder="minh")
    centre.complete("approval", holder="hoa")
    assert centre.dossier.result is not None
    assert centre.dossier.result["signed_by"] == "hoa"


def test_a_signature_has_a_known_capacity_and_a_known_kind() -> None:
    centre = received()
    centre.complete("appraisal")
    for wrong in ({"signed_as": "XX."}, {"signature": "rubber"}):
        with pytest.raises(Refused, match="bad-field"):
            centre.complete("approval", fields=wrong)
    assert "ResultSigned" not in centre.public
    centre.complete("approval", fields={"signed_as": "TUQ.", "signature": "wet_scanned", "signed_by": "Trần B"})
    signed = centre.last(events.ResultSigned)
    assert (signed.signed_as, signed.signature) == ("TUQ.", "wet_scanned")
    assert "Trần" not in signed.model_dump_json()


@pytest.mark.parametrize(
    ("outcome", "changed", "code"),
    [
        ("agree", {"version": 7}, "stale-version"),
        ("fly", {}, "unknown-outcome"),
        ("refuse", {"note": "  "}, "note-required"),
        ("agree", {"fields": {"number": "1"}}, "unknown-field"),
    ],
)
def test_a_refused_command_has_a_reason_in_both_languages(outcome: str, changed: dict, code: str) -> None:  # type: ignore[type-arg] # parametrized
    centre = received()
    with pytest.raises(Refused) as refused:
        centre.complete("appraisal", outcome, **changed)
    assert refused.value.code == code
    assert len(refused.value.vi) > 5
    assert len(refused.value.en) > 5


def test_a_started_task_has_a_holder_and_a_new_version() -> None:
    centre = received()
    task = centre.task("appraisal")
    decision = lifecycle.start(centre.dossier, task, centre.context(), version=1, holder="minh")
    assert decision.events == []
    assert decision.tasks == {task.task_id: task}
    assert (task.version, task.state, task.holder) == (2, "started", "minh")
    with pytest.raises(Refused, match="held-by-another"):
        lifecycle.start(centre.dossier, task, centre.context(), version=2, holder="hoa")
    with pytest.raises(Refused, match="stale-version"):
        centre.complete("appraisal", version=1)
    centre.complete("appraisal")


def test_every_outcome_of_every_kind_of_task_has_a_rule() -> None:
    wanted = {(kind, outcome.code) for kind, outcomes in lifecycle.OUTCOMES.items() for outcome in outcomes}
    assert lifecycle.COMPLETIONS.keys() == wanted


def test_an_officer_cannot_complete_a_task_that_waits_for_a_machine() -> None:
    centre = received(BIRTH)
    awaited = centre.dossier.find_open_task("id_number", machine=True)
    assert awaited is not None
    completion = lifecycle.Completion(outcome="found", version=1, holder="minh")
    with pytest.raises(Refused, match="machine-task"):
        lifecycle.complete(centre.dossier, centre.rules, awaited, centre.context(), completion)


def test_a_closed_task_has_the_times_when_it_was_entered_started_and_left() -> None:
    centre = received()
    task = centre.task("appraisal")
    centre.now = at("2025-08-27T09:10")
    lifecycle.start(centre.dossier, task, centre.context(), version=1, holder="minh")
    centre.now = at("2025-08-27T09:30")
    centre.complete("appraisal", holder="minh")
    closed = next(row for row in centre.closed if row.stage == "appraisal")
    assert (closed.entered_office_at, closed.started_office_at, closed.left_office_at) == (
        at("2025-08-27T09:00"), at("2025-08-27T09:10"), at("2025-08-27T09:30"),
    )  # fmt: skip
    assert closed.left_at is not None
    assert (closed.left_at - closed.entered_at).total_seconds() == 1800
    assert closed.outcome == "agree"


def test_the_result_may_be_set_before_the_return_and_not_after_it() -> None:
    centre = Centre(rules(LINKED_DEATH))
    centre.submit(caller_role="system", channel="online")
    with pytest.raises(Refused, match="not-received"):
        lifecycle.set_result(centre.dossier, centre.rules, {"number": "1"})
    centre.complete("reception")
    lifecycle.set_result(centre.dossier, centre.rules, {"number": "07/2025", "signed_by": "Lê C"})
    centre.forward("appraisal", "approval", "issuing")
    assert centre.dossier.result is not None
    assert (centre.dossier.result["number"], centre.dossier.result["signed_by"]) == ("07/2025", "Lê C")
    centre.complete("return")
    with pytest.raises(Refused, match="already-ended"):
        lifecycle.set_result(centre.dossier, centre.rules, {"number": "2"})
