"""The golden sample of every fact: its class reads it and writes it back equal; public ones have no personal data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from jsonschema import Draft202012Validator

from deploy.docs import schemas as documents
from shared.contract.envelope import Record, cloud_event, headers_of, new_id, parse
from shared.contract.events import COMPACTED, EVENT_TYPES, PUBLIC, STATE, Fact, Heartbeat
from shared.contract.partitions import lane_of

SAMPLES = Path(__file__).parent / "samples"
STATE_NAME = "DossierState"
FACTS = {kind.__name__: kind for kind in EVENT_TYPES.values()}
PUBLIC_NAMES = sorted([STATE_NAME, *(name for name, kind in FACTS.items() if kind.topic in PUBLIC)])
FORBIDDEN = re.compile(r"name|phone|address|note|personal_id|email|birth|sealed|file|officer|contact", re.IGNORECASE)
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LONG_NUMBER = re.compile(r"[0-9]{12}")
SEALED = re.compile(r"[A-Za-z0-9]+\.[A-Za-z0-9+/]{38,}={0,2}")
NOW = datetime(2025, 8, 25, 1, 12, 30, 125_000, UTC)


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text("utf-8"))


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from keys_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from keys_of(item)


def property_names(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for word, value in schema.items():
            if word == "properties":
                yield from value
            yield from property_names(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from property_names(item)


def headers_for(kind: type[Fact], subject: str) -> list[tuple[str, bytes]]:
    return headers_of(
        topic=kind.topic,
        subject=subject,
        sequence=7,
        ce_id=new_id(),
        type=kind.__name__,
        trace_id=new_id(),
        recorded_at=NOW,
    )


def test_every_fact_has_a_sample_and_every_sample_a_fact() -> None:
    assert {file.stem for file in SAMPLES.iterdir()} == {*FACTS, STATE_NAME}


@pytest.mark.parametrize("name", sorted(FACTS))
def test_the_class_of_a_fact_reads_the_sample_and_writes_it_back_equal(name: str) -> None:
    golden = sample(name)
    fact = FACTS[name].model_validate_json(json.dumps(golden))
    assert json.loads(fact.to_json()) == golden
    assert fact.to_json() == fact.model_dump_json().encode()


@pytest.mark.parametrize("name", sorted(FACTS))
def test_a_sample_has_every_field(name: str) -> None:
    assert set(sample(name)) == set(FACTS[name].model_fields)


@pytest.mark.parametrize("name", sorted([*FACTS, STATE_NAME]))
def test_a_sample_fits_the_published_schema(name: str) -> None:
    schema = json.loads(documents.schemas()[name])
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert [error.message for error in validator.iter_errors(sample(name))] == []


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_a_public_fact_has_no_field_for_personal_data(name: str) -> None:
    schema = json.loads(documents.schemas()[name])
    assert [key for key in (*property_names(schema), *keys_of(sample(name))) if FORBIDDEN.search(key)] == []


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_a_public_sample_has_no_run_of_twelve_digits(name: str) -> None:
    without_ids = re.sub(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", (SAMPLES / f"{name}.json").read_text("utf-8")
    )
    assert not LONG_NUMBER.search(without_ids)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_personal_fields_of_internal_facts_are_sealed(name: str) -> None:
    for key, value in sample(name).items():
        if key.startswith("sealed_"):
            assert value is None or SEALED.fullmatch(value), key


@pytest.mark.parametrize("name", sorted(FACTS))
def test_the_cloudevents_sdk_reads_our_record(name: str) -> None:
    kind = FACTS[name]
    subject = sample(name)["code"] if kind.topic in COMPACTED else str(new_id())
    headers = dict(headers_for(kind, subject))
    value = json.dumps(sample(name)).encode()
    event = from_binary_event(KafkaMessage(headers=headers, key=subject.encode(), value=value))
    assert event.get_id() == headers["ce_id"].decode()
    assert event.get_source() == headers["ce_source"].decode()
    assert event.get_type() == f"vn.hoso.{name}.v1"
    assert event.get_specversion() == "1.0"
    assert event.get_subject() == subject
    assert event.get_time() == NOW
    assert event.get_extension("sequence") == "0000000007"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == sample(name)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_our_own_parser_reads_our_record(name: str) -> None:
    kind = FACTS[name]
    subject = sample(name)["code"] if kind.topic in COMPACTED else str(new_id())
    headers = tuple(headers_for(kind, subject))
    value = json.dumps(sample(name)).encode()
    event = parse(Record(kind.topic, lane_of(subject), 0, subject.encode(), headers, value, NOW))
    assert (event.type, event.defect) == (name, "")
    assert event.fact == kind.model_validate(sample(name))
    assert (event.stream is not None) == (kind.topic not in COMPACTED and not issubclass(kind, Heartbeat))


TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})?")


@pytest.mark.parametrize("name", sorted(FACTS))
def test_every_office_time_is_written_with_the_offset_of_vietnam(name: str) -> None:
    """The zone that a time had in Python does not matter. Only heartbeats have wall time, in UTC."""
    offset = "Z" if issubclass(FACTS[name], Heartbeat) else "+07:00"
    fact = FACTS[name].model_validate_json(json.dumps(sample(name)))
    for zone in (UTC, timezone(timedelta(hours=7)), timezone(timedelta(hours=9))):
        if offset == "Z" and zone is not UTC:
            continue
        times = {field: value.astimezone(zone) for field, value in dict(fact).items() if isinstance(value, datetime)}
        written = FACTS[name].model_validate(dict(fact) | times).to_json()
        assert json.loads(written) == sample(name)
        assert {time[1] for time in TIME.finditer(written.decode())} <= {offset}


def test_a_time_in_another_zone_is_read_as_the_same_time() -> None:
    golden = json.dumps(sample("DossierReceived"))
    in_utc = TIME.sub(lambda time: datetime.fromisoformat(time[0]).astimezone(UTC).isoformat(), golden)
    assert in_utc != golden
    assert FACTS["DossierReceived"].model_validate_json(in_utc) == FACTS["DossierReceived"].model_validate_json(golden)


def test_the_feed_writes_an_event_as_the_broker_does() -> None:
    kind, ce_id, trace_id, subject = FACTS["DossierReceived"], new_id(), new_id(), str(new_id())
    envelope: dict[str, Any] = {
        "topic": kind.topic,
        "subject": subject,
        "sequence": 7,
        "ce_id": ce_id,
        "type": kind.__name__,
        "trace_id": trace_id,
        "recorded_at": NOW,
    }
    event = cloud_event(**envelope, data=json.dumps(sample("DossierReceived")).encode())
    headers = {name.removeprefix("ce_"): value.decode() for name, value in headers_of(**envelope)}
    headers["datacontenttype"] = headers.pop("content-type")
    assert {name: value for name, value in event.items() if name != "data"} == headers
    assert event["data"] == sample("DossierReceived")


def test_the_state_is_on_a_compacted_topic_without_a_class_of_its_own() -> None:
    assert STATE in COMPACTED
    assert not [kind for kind in FACTS.values() if kind.topic == STATE]
    assert set(sample(STATE_NAME)) == set(documents.STATE_FIELDS)
