"""The envelope: an event is read as it was written, by CloudEvents; a record that breaks the format is refused."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contract.envelope import (
    MAX_VALUE,
    Malformed,
    Record,
    cloud_event,
    fingerprint,
    headers_of,
    new_id,
    parse,
    records_from,
    trace_of,
)
from shared.contract.events import COMPACTED, EVENT_TYPES, PROCEDURES, SUBMISSIONS, ProcedurePublished
from tests.shared.records import NOON, record, withdrawal


def test_ids_are_version_7_and_sort_by_the_time_they_were_made() -> None:
    first = new_id()
    time.sleep(0.002)
    second = new_id()
    assert (first.version, first.variant) == (7, "specified in RFC 4122")
    assert first < second
    assert abs((first.int >> 80) / 1000 - time.time()) < 5
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_a_fingerprint_is_the_ids_last_four_bytes_and_fits_an_integer_column() -> None:
    assert fingerprint(UUID(int=5)) == 5
    assert fingerprint(UUID(int=2**128 - 1)) == -1


def test_a_valid_trace_is_kept_and_an_invalid_one_is_replaced() -> None:
    known = uuid4()
    assert trace_of(f"00-{known.hex}-00f067aa0ba902b7-01") == known
    for nonsense in (None, "", "00-zz-1-01", f"00-{'0' * 32}-00f067aa0ba902b7-01"):
        assert trace_of(nonsense).version == 7


def test_an_event_is_read_as_it_was_written() -> None:
    dossier_id, ce_id = uuid4(), new_id()
    event = parse(record(dossier_id, 7, "xin chào", ce_id=ce_id))
    assert (event.dossier_id, event.sequence, event.ce_id, event.recorded_at) == (dossier_id, 7, ce_id, NOON)
    assert event.fact == withdrawal("xin chào")
    assert event.stream


def test_the_cloudevents_sdk_reads_our_binary_mode_and_finds_the_same_event() -> None:
    ours = record(uuid4(), 7, "một")
    event = from_binary_event(
        KafkaMessage(headers=dict(ours.headers), key=ours.key, value=ours.value or b""), JSONFormat()
    )
    assert event.get_id() == str(parse(ours).ce_id)
    assert event.get_source() == f"/hoso/intake/{SUBMISSIONS}"
    assert event.get_type() == "vn.hoso.WithdrawalRequested.v1"
    assert event.get_subject() == (ours.key or b"").decode()
    assert event.get_time() == NOON
    assert event.get_extension("sequence") == "0000000007"
    data = event.get_data()
    assert isinstance(data, dict)
    assert data["sealed_reason"] == "một"


def test_the_cloudevents_sdk_reads_our_json_form_and_finds_the_same_event() -> None:
    dossier_id, ce_id, trace_id = uuid4(), new_id(), new_id()
    data = withdrawal("hai").model_dump_json().encode()
    envelope: dict[str, Any] = {
        "topic": SUBMISSIONS,
        "subject": str(dossier_id),
        "sequence": 3,
        "ce_id": ce_id,
        "type": "WithdrawalRequested",
        "trace_id": trace_id,
        "recorded_at": NOON,
    }
    event_json = cloud_event(**envelope, data=data)
    headers = {"content-type": b"application/cloudevents+json"}
    event = from_structured_event(
        KafkaMessage(headers=headers, key=None, value=json.dumps(event_json).encode()), JSONFormat()
    )
    binary = from_binary_event(KafkaMessage(headers=dict(headers_of(**envelope)), key=None, value=data), JSONFormat())
    assert event.get_attributes() == {**binary.get_attributes(), "traceparent": event_json["traceparent"]}
    assert event.get_data() == binary.get_data()


# ---- what is refused -------------------------------------------------------------------------------------------------

HEADERS = ("ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "ce_sequence")


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"nonsense\x00"])
def test_a_missing_or_invalid_header_is_refused_with_a_reason(name: str, value: bytes | None) -> None:
    if name == "ce_type" and value is not None and value != b"\xff\xfe":
        assert parse(record(uuid4(), 1, headers={name: value})).defect == "unknown-type"
        return
    with pytest.raises(Malformed) as refused:
        parse(record(uuid4(), 1, headers={name: value}))
    assert refused.value.reason in ("no-envelope", "unknown-source", "key-mismatch")


@pytest.mark.parametrize("digits", [b"0", b"-1", b"1.0", "²".encode(), b"00000000001", b"9999999999"])
def test_a_sequence_that_is_not_a_positive_number_is_refused(digits: bytes) -> None:
    with pytest.raises(Malformed):
        parse(record(uuid4(), 1, headers={"ce_sequence": digits}))


@pytest.mark.parametrize("text", [b"2026-02-13", b"2026-02-13T12:00:00", b"0001-01-01T00:00:00+14:00", b"soon"])
def test_a_time_without_zone_or_out_of_range_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        parse(record(uuid4(), 1, headers={"ce_time": text}))


def test_a_dossier_id_in_another_spelling_is_refused() -> None:
    """The same dossier would come on another partition."""
    dossier_id = UUID("abcdefab-0000-4000-8000-000000000001")
    for spelling in (str(dossier_id).upper(), f"{{{dossier_id}}}", dossier_id.hex):
        with pytest.raises(Malformed):
            parse(record(dossier_id, 1, key=spelling.encode(), headers={"ce_subject": spelling.encode()}))


def test_only_the_topics_own_service_may_publish_on_it() -> None:
    with pytest.raises(Malformed, match="may not publish"):
        parse(record(uuid4(), 1, headers={"ce_source": b"/hoso/workflow/internal.submissions.v1"}))


def test_a_key_that_is_not_the_subject_is_refused() -> None:
    with pytest.raises(Malformed, match="key"):
        parse(record(uuid4(), 1, key=str(uuid4()).encode()))


CONTENTS = [
    (b"", "schema"),
    (b"\xff", "schema"),
    (b"[]", "schema"),
    (b'{"office_at": "yesterday", "sealed_reason": 5}', "schema"),
    (b"[" * 100_000, "schema"),
    (b'"' + b"x" * MAX_VALUE + b'"', "oversized"),
]


@pytest.mark.parametrize(("value", "defect"), CONTENTS, ids=[f"{v[:8]!r}" for v, _ in CONTENTS])
def test_an_event_with_unusable_data_keeps_its_sequence(value: bytes, defect: str) -> None:
    event = parse(record(uuid4(), 4, value=value))
    assert (event.sequence, event.fact, event.defect) == (4, None, defect)


def test_a_defect_names_the_field_and_never_the_value() -> None:
    event = parse(record(uuid4(), 1, value=b'{"office_at": "Nguyen Van A", "sealed_reason": 79123456789}'))
    assert event.defect == "schema"
    assert "Nguyen" not in event.detail
    assert "office_at" in event.detail


def test_a_fact_on_another_facts_topic_is_a_defect() -> None:
    assert parse(record(uuid4(), 1, type="NoticeSent")).defect == "wrong-topic"


def test_a_compacted_topic_has_no_sequence() -> None:
    fact = ProcedurePublished(code="1.000001", version=2, procedure={})
    dossier = uuid4()
    published = record(dossier, 2, fact=fact, topic=PROCEDURES, key=b"1.000001", headers={"ce_subject": b"1.000001"})
    assert parse(published).stream is None
    assert PROCEDURES in COMPACTED


def test_a_record_of_any_age_has_a_time() -> None:
    rows = [
        SimpleNamespace(topic=SUBMISSIONS, partition=0, offset=0, key=None, headers=(), value=None, timestamp=millis)
        for millis in (-1, None, 0, 2**62)
    ]
    years = [one.sent_at.year for one in records_from(rows)]
    assert years == [1970, 1970, 1970, 2100]


def test_a_digest_differs_for_a_tampered_record_and_not_for_another_offset() -> None:
    one = record(uuid4(), 1)
    moved = Record(one.topic, 3, 99, one.key, one.headers, one.value, datetime.now(UTC))
    assert one.digest() == moved.digest()
    tampered = Record(one.topic, 3, 99, one.key, one.headers, (one.value or b"") + b" ", NOON)
    assert one.digest() != tampered.digest()


@given(
    st.dictionaries(st.sampled_from([*HEADERS, "content-type", "traceparent", "x"]), st.binary(max_size=60)),
    st.binary(max_size=60) | st.none(),
    st.binary(max_size=60) | st.none(),
)
@settings(max_examples=500, deadline=None)
def test_no_record_raises_anything_but_malformed(
    headers: dict[str, bytes], key: bytes | None, value: bytes | None
) -> None:
    whole = dict(record(UUID(int=1), 1).headers) | headers
    with contextlib.suppress(Malformed):
        parse(Record(SUBMISSIONS, 0, 0, key, tuple(whole.items()), value, NOON))


def test_every_fact_is_registered_and_has_a_topic() -> None:
    assert len(EVENT_TYPES) > 30
    assert all(kind.topic for kind in EVENT_TYPES.values())
