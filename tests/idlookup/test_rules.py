"""What an answer means for a request, without a database or a registry."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.idlookup.rules import (
    Next,
    RegistryAnswer,
    Request,
    after,
    call_body,
    fact_of,
    look_again_in,
    must_send,
    pause_in,
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


def next_of(request: Request, word: str, *, age_s: float = 0.0, number: str | None = None) -> Next:
    return after(request, RegistryAnswer(word, number), NOW + timedelta(seconds=age_s), chance=0.5, forget_after_s=3600)


def test_a_request_never_asked_is_sent_and_one_that_may_have_arrived_is_asked_after_first() -> None:
    assert must_send(ISSUE, None)
    assert not must_send(replace(ISSUE, asked=True), None)
    assert must_send(replace(ISSUE, asked=True), RegistryAnswer("unknown"))
    assert not must_send(replace(ISSUE, asked=True), RegistryAnswer("pending"))
    assert not must_send(replace(ISSUE, asked=True), RegistryAnswer("issued", "025326000123"))


def test_while_nobody_knows_whether_it_arrived_nothing_is_sent() -> None:
    assert not must_send(replace(ISSUE, asked=True), RegistryAnswer("lost"))
    assert next_of(ISSUE, "lost").asked
    assert next_of(SENT, "lost").state == "pending"


@pytest.mark.parametrize("word", ["unknown", "technical-error", "duplicate-suspected"])
def test_what_nobody_wants_any_more_is_never_sent_anew(word: str) -> None:
    dropped = replace(ISSUE, asked=True, dropped=True, confirmed=True)
    assert not must_send(dropped, RegistryAnswer(word))
    assert not must_send(dropped, None)


def test_a_technical_error_is_sent_again_only_after_a_pause() -> None:
    failed = next_of(SENT, "technical-error")
    assert failed.state == "pending"
    assert failed.to_send
    assert failed.pause_s
    assert failed.pause_s >= 0.1
    assert not must_send(SENT, RegistryAnswer("technical-error"))
    assert must_send(replace(SENT, to_send=True), RegistryAnswer("technical-error"))


def test_a_confirmed_duplicate_is_sent_once_more_and_no_oftener() -> None:
    again = replace(ISSUE, asked=True, confirmed=True)
    assert must_send(again, RegistryAnswer("duplicate-suspected"))
    assert not must_send(replace(again, to_send=False), RegistryAnswer("duplicate-suspected"))
    assert not must_send(replace(again, confirmed=False), RegistryAnswer("duplicate-suspected"))
    assert next_of(replace(again, to_send=False), "duplicate-suspected").state == "duplicate"


@pytest.mark.parametrize(
    ("request_", "word", "state", "fact"),
    [
        (SENT, "rejected", "refused", IdNumberRefused),
        (SENT, "duplicate-suspected", "duplicate", IdNumberDuplicateSuspected),
        (VERIFY, "match", "matched", IdCheckAnswered),
        (VERIFY, "mismatch", "mismatched", IdCheckAnswered),
        (VERIFY, "rejected", "refused", IdCheckAnswered),
    ],
)
def test_a_last_word_ends_the_request_and_is_told(request_: Request, word: str, state: str, fact: type) -> None:
    made = next_of(request_, word)
    assert (made.state, made.pause_s) == (state, None)
    told = fact_of(request_, made, None, ())
    assert isinstance(told, fact)
    if isinstance(told, IdCheckAnswered):
        assert told.answer == word


def test_a_number_is_told_sealed_though_nobody_wants_it_any_more() -> None:
    made = next_of(replace(SENT, dropped=True), "issued", number="025326000123")
    assert (made.state, made.number) == ("found", "025326000123")
    told = fact_of(SENT, made, "t1.sealed", ("year",))
    assert told == IdNumberFound(request_key=SENT.request_key, sealed_number="t1.sealed", warnings=("year",))


@pytest.mark.parametrize("word", ["issued", "match", "nonsense", "None", ""])
def test_a_word_that_makes_no_sense_is_a_technical_error(word: str) -> None:
    """`issued` without a number, a check's answer to a want, and what nobody has heard before."""
    assert next_of(SENT, word) == next_of(SENT, "technical-error")


@pytest.mark.parametrize("word", ["issued", "processing", "None", ""])
def test_what_nobody_wants_is_still_asked_after_while_the_registrys_word_is_not_understood(word: str) -> None:
    """It may have a number by now, or get one: only the registry's own last word ends it."""
    made = next_of(replace(SENT, dropped=True), word)
    assert made.state == "pending"
    assert made.pause_s
    assert next_of(replace(SENT, dropped=True), "technical-error").state == "stopped"


def test_unknown_after_being_dropped_is_asked_after_for_long_and_then_stopped() -> None:
    dropped = replace(SENT, dropped=True)
    early = next_of(dropped, "unknown", age_s=100)
    assert early.state == "pending"
    assert early.pause_s is not None
    late = next_of(dropped, "unknown", age_s=3601)
    assert (late.state, late.pause_s) == ("stopped", None)
    assert fact_of(dropped, late, None, ()) is None


def test_where_nobody_listens_a_request_stays_never_asked() -> None:
    refused = next_of(ISSUE, "unreachable")
    assert (refused.state, refused.asked, refused.lost) == ("waiting", False, 1)
    before = next_of(replace(ISSUE, asked=True), "unreachable")
    assert (before.state, before.asked) == ("pending", True)


def test_looks_begin_at_once_and_become_rare() -> None:
    assert look_again_in(0.0, 0.5) == pytest.approx(0.02)
    assert look_again_in(4.0, 0.5) == pytest.approx(1.0)
    assert look_again_in(60.0, 0.5) == pytest.approx(5.0)
    assert look_again_in(10_000.0, 0.5) == pytest.approx(100.0)
    assert look_again_in(86_400 * 30, 0.5) == pytest.approx(300.0)
    pauses = [pause_in(lost, 0.5) for lost in range(12)]
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.2)
    assert pauses[-1] == pytest.approx(15.0)
    assert pause_in(3, 0.0) < pause_in(3, 0.5) < pause_in(3, 1.0)


def test_the_registry_is_told_the_same_each_time_and_of_a_check_only_what_it_compares() -> None:
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
