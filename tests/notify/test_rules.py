"""Which channels a notice gets, and what follows from the result of a try."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notify.rules import (
    CALL_LIST,
    EMAIL,
    SENDABLE,
    SMS,
    ZALO,
    Attempt,
    RetryPolicy,
    SendResult,
    channel_after,
    channels,
    read_contact,
    settle,
)

ALL = frozenset(SENDABLE)
BOTH = read_contact({"full_name": "Ví Dụ", "phone": "0912345678", "email": "a@vidu.invalid"})


def test_a_mobile_phone_gets_sms_then_zalo_and_mail_comes_last() -> None:
    assert channels(BOTH, ALL) == (SMS, ZALO, EMAIL, CALL_LIST)


def test_a_channel_that_is_not_configured_is_not_chosen() -> None:
    assert channels(BOTH, {EMAIL}) == (EMAIL, CALL_LIST)
    assert channels(BOTH, ()) == (CALL_LIST,)


@pytest.mark.parametrize("contact", [{}, None, [], "x", {"phone": 912345678}, {"phone": "", "email": "@"}])
def test_a_person_whom_no_message_reaches_is_called(contact: object) -> None:
    assert channels(read_contact(contact), ALL) == (CALL_LIST,)


@pytest.mark.parametrize("phone", ["0912345678", "+84912345678", "84 912 345 678", "0912.345.678", "(0912) 345-678"])
def test_a_mobile_phone_is_recognised_in_any_spelling(phone: str) -> None:
    assert read_contact({"phone": phone}).mobile == "+84912345678"


@pytest.mark.parametrize("phone", ["0210 3885 123", "02438223456", "12345", "091234567", "09123456789", "0112345678"])
def test_a_landline_or_a_wrong_number_takes_no_message_but_stays_on_the_call_list(phone: str) -> None:
    contact = read_contact({"phone": phone})
    assert contact.mobile is None
    assert contact.phone == phone


@pytest.mark.parametrize(
    "email", ["a b@x.vn", "a@x.vn\nBcc: b@x.vn", "a@", "@x.vn", "a@x..vn", "<a@x.vn>", "a@x.vn,b@x.vn"]
)
def test_an_address_that_could_name_more_than_one_recipient_is_left_out(email: str) -> None:
    assert read_contact({"email": email}).email is None


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_a_contact_of_any_form_leaves_at_least_the_call_list(opened: object) -> None:
    assert channels(read_contact(opened), ALL)[-1] == CALL_LIST


def test_the_next_channel_is_a_later_one_and_after_an_unknown_outcome_somebody_calls() -> None:
    assert channel_after(SMS, BOTH, ALL, call=False) == ZALO
    assert channel_after(ZALO, BOTH, ALL, call=False) == EMAIL
    assert channel_after(EMAIL, BOTH, ALL, call=False) == CALL_LIST
    assert channel_after(SMS, BOTH, ALL, call=True) == CALL_LIST


def settled(result: SendResult, tries: int) -> tuple[str, str | None]:
    settlement = settle(result, Attempt(SMS, tries, BOTH), ALL, RetryPolicy(max_tries=3), 0.5)
    return settlement.state, settlement.next_channel


def test_a_channel_is_tried_up_to_the_limit_then_the_next_takes_over() -> None:
    assert settled(SendResult("retry"), 1) == ("due", None)
    assert settled(SendResult("retry"), 2) == ("due", None)
    assert settled(SendResult("retry"), 3) == ("failed", ZALO)


def test_a_refusal_is_not_tried_again_and_an_unknown_outcome_is_never_sent_again() -> None:
    assert settled(SendResult("refused"), 1) == ("failed", ZALO)
    assert settled(SendResult("unknown"), 1) == ("failed", CALL_LIST)


def test_pauses_double_vary_and_have_a_maximum() -> None:
    policy = RetryPolicy(first_pause_s=1.0, max_pause_s=60.0)
    assert [policy.pause_s(tries, 0.5) for tries in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 8.0]
    assert policy.pause_s(3, 0.0) == 2.0
    assert policy.pause_s(30_000, 1.0) == 90.0
