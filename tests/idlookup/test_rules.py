"""What an answer of the registry means for a request; no database and no registry."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.idlookup.rules import (
    NextState,
    RegistryAnswer,
    Request,
    backoff_s,
    call_body,
    must_send,
    poll_interval_s,
    result_of,
    state_after,
)
from shared.contract.envelope import NO_TRACE, new_id
from shared.contract.events import IdCheckAnswered, IdNumberDuplicateSuspected, IdNumberFound, IdNumberRefused

NOW = datetime(2026, 2, 2, 9, 0, tzinfo=UTC)
ISSUE = Request(
    request_key=new_id(),
    dossier_id=new_id(),
    kind="issue",
    sealed="",
    trace_id=NO_TRACE,
    asked=False,
    to_send=True,
    confirmed=False,
    dropped=False,
    tries=1,
    lost=0,
    wanted_at=NOW,
    asked_at=NOW,
)
SENT = replace(ISSUE, asked=True, to_send=False)
VERIFY = replace(ISSUE, kind="verify")


def next_of(request: Request, state: str, *, age_s: float = 0.0, number: str | None = None) -> NextState:
    return state_after(
        request, RegistryAnswer(state, number), NOW + timedelta(seconds=age_s), chance=0.5, forget_after_s=3600
    )


def test_a_new_request_is_sent_and_one_that_may_have_arrived_is_first_asked_about() -> None:
    assert must_send(ISSUE, None)
    assert not must_send(replace(ISSUE, asked=True), None)
    assert must_send(replace(ISSUE, asked=True), RegistryAnswer("unknown"))
    assert not must_send(replace(ISSUE, asked=True), RegistryAnswer("pending"))
    assert not must_send(replace(ISSUE, asked=True), RegistryAnswer("issued", "025326000123"))


def test_while_it_is_unknown_whether_a_request_arrived_it_is_not_sent_again() -> None:
    assert not must_send(replace(ISSUE, asked=True), RegistryAnswer("lost"))
    assert next_of(ISSUE, "lost").asked
    assert next_of(SENT, "lost").state == "pending"


@pytest.mark.parametrize("answer", ["unknown", "technical-error", "duplicate-suspected"])
def test_a_request_that_is_no_longer_wanted_is_never_sent_again(answer: str) -> None:
    dropped = replace(ISSUE, asked=True, dropped=True, confirmed=True)
    assert not must_send(dropped, RegistryAnswer(answer))
    assert not must_send(dropped, None)


def test_a_technical_error_is_sent_again_only_after_a_pause() -> None:
    failed = next_of(SENT, "technical-error")
    assert failed.state == "pending"
    assert failed.to_send
    assert failed.pause_s
    assert failed.pause_s >= 0.1
    assert not must_send(SENT, RegistryAnswer("technical-error"))
    assert must_send(replace(SENT, to_send=True), RegistryAnswer("technical-error"))


def test_a_confirmed_duplicate_is_sent_again_once() -> None:
    again = replace(ISSUE, asked=True, confirmed=True)
    assert must_send(again, RegistryAnswer("duplicate-suspected"))
    assert not must_send(replace(again, to_send=False), RegistryAnswer("duplicate-suspected"))
    assert not must_send(replace(again, confirmed=False), RegistryAnswer("duplicate-suspected"))
    assert next_of(replace(again, to_send=False), "duplicate-suspected").state == "duplicate"


@pytest.mark.parametrize(
    ("request_", "answer", "state", "fact"),
    [
        (SENT, "rejected", "refused", IdNumberRefused),
        (SENT, "duplicate-suspected", "duplicate", IdNumberDuplicateSuspected),
        (VERIFY, "match", "matched", IdCheckAnswered),
        (VERIFY, "mismatch", "mismatched", IdCheckAnswered),
        (VERIFY, "rejected", "refused", IdCheckAnswered),
    ],
)
def test_a_final_answer_ends_the_request_and_is_published(
    request_: Request, answer: str, state: str, fact: type
) -> None:
    next_state = next_of(request_, answer)
    assert (next_state.state, next_state.pause_s) == (state, None)
    result = result_of(request_, next_state, None, ())
    assert isinstance(result, fact)
    if isinstance(result, IdCheckAnswered):
        assert result.answer == answer


def test_a_number_is_published_sealed_even_when_it_is_no_longer_wanted() -> None:
    next_state = next_of(replace(SENT, dropped=True), "issued", number="025326000123")
    assert (next_state.state, next_state.number) == ("found", "025326000123")
    result = result_of(SENT, next_state, "t1.sealed", ("year",))
    assert result == IdNumberFound(request_key=SENT.request_key, sealed_number="t1.sealed", warnings=("year",))


@pytest.mark.parametrize("answer", ["issued", "match", "nonsense", "None", ""])
def test_an_answer_that_makes_no_sense_is_a_technical_error(answer: str) -> None:
    """`issued` without a number, a check's answer to a request for a number, and unknown states."""
    assert next_of(SENT, answer) == next_of(SENT, "technical-error")


@pytest.mark.parametrize("answer", ["issued", "processing", "None", ""])
def test_a_request_no_longer_wanted_is_asked_about_until_the_registrys_answer_is_final(answer: str) -> None:
    """It may have a number by now, or get one: only a final answer of the registry ends it."""
    next_state = next_of(replace(SENT, dropped=True), answer)
    assert next_state.state == "pending"
    assert next_state.pause_s
    assert next_of(replace(SENT, dropped=True), "technical-error").state == "stopped"


def test_a_request_no_longer_wanted_and_unknown_is_asked_about_for_long_and_then_stopped() -> None:
    dropped = replace(SENT, dropped=True)
    early = next_of(dropped, "unknown", age_s=100)
    assert early.state == "pending"
    assert early.pause_s is not None
    late = next_of(dropped, "unknown", age_s=3601)
    assert (late.state, late.pause_s) == ("stopped", None)
    assert result_of(dropped, late, None, ()) is None


def test_a_request_that_cannot_have_arrived_stays_never_asked() -> None:
    refused = next_of(ISSUE, "unreachable")
    assert (refused.state, refused.asked, refused.lost) == ("waiting", False, 1)
    before = next_of(replace(ISSUE, asked=True), "unreachable")
    assert (before.state, before.asked) == ("pending", True)


def test_polling_begins_at_once_and_becomes_rare() -> None:
    assert poll_interval_s(0.0, 0.5) == pytest.approx(0.02)
    assert poll_interval_s(4.0, 0.5) == pytest.approx(1.0)
    assert poll_interval_s(60.0, 0.5) == pytest.approx(5.0)
    assert poll_interval_s(10_000.0, 0.5) == pytest.approx(100.0)
    assert poll_interval_s(86_400 * 30, 0.5) == pytest.approx(300.0)
    pauses = [backoff_s(lost, 0.5) for lost in range(12)]
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.2)
    assert pauses[-1] == pytest.approx(15.0)
    assert backoff_s(3, 0.0) < backoff_s(3, 0.5) < backoff_s(3, 1.0)


def test_the_registry_is_sent_the_same_each_time_and_for_a_check_only_what_it_compares() -> None:
    subject = {"child": {"full_name": "Nguyễn Minh Mẫu"}}
    body = call_body(ISSUE, subject)
    assert body == call_body(ISSUE, subject)
    assert body["key"] == str(ISSUE.request_key)
    assert "confirmed" not in body
    assert call_body(replace(ISSUE, confirmed=True), subject) == {**body, "confirmed": True}
    person = {"full_name": "Trần Thị Mẫu", "personal_id": "025196000123", "phone": "0912345678"}
    assert call_body(VERIFY, person) == {
        "key": str(VERIFY.request_key),
        "kind": "verify",
        "full_name": "Trần Thị Mẫu",
        "personal_id": "025196000123",
    }
