"""How the proof reads the broker: events of a dossier, heartbeats, and strangers (records that are not hoso's)."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from deploy import verify
from deploy.local.ports import free_port
from deploy.verify.notebook import Notebook
from deploy.verify.stream import ForeignRecord, read_record, read_stream
from tests.verify.world import HEALTHY, LIFECYCLE, NOTICES, SUBMISSIONS, Event, World

DOSSIER = UUID("0198e3a0-0000-7000-8000-000000000001")
Headers = list[tuple[str, bytes]]


def event(**changes: object) -> tuple[str, bytes, dict[str, bytes], bytes]:
    started = Event(LIFECYCLE, DOSSIER, 7, "StepStarted", {}).copy(**changes)
    return started.topic, str(started.dossier).encode(), dict(started.headers()), b"{}"


def test_a_record_is_read_from_its_headers() -> None:
    ce_id = uuid4()
    topic, key, headers, value = event(ce_id=ce_id)
    seen = read_record(topic, key, headers.items(), value)
    assert seen is not None
    assert (UUID(bytes=seen.dossier), seen.sequence, seen.type) == (DOSSIER, 7, "StepStarted")
    assert UUID(bytes=seen.ce_id) == ce_id


def test_a_heartbeat_is_not_an_event_of_a_dossier() -> None:
    topic, _, headers, value = event(topic=NOTICES, type="NoticeHeartbeat")
    headers |= {"ce_subject": b"heartbeat-3", "ce_sequence": b"0000000000"}
    assert read_record(topic, b"heartbeat-3", headers.items(), value) is None


@pytest.mark.parametrize("name", ["ce_id", "ce_source", "ce_type", "ce_subject", "ce_sequence"])
def test_a_record_without_one_of_its_headers_is_a_stranger(name: str) -> None:
    topic, key, headers, value = event()
    del headers[name]
    with pytest.raises(ForeignRecord, match=f"no {name}"):
        read_record(topic, key, headers.items(), value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_specversion", b"0.3"),
        ("ce_source", b"/hoso/intake/dossier.lifecycle.v1"),
        ("ce_source", b"/hoso/workflow/internal.notices.v1"),
        ("ce_type", b"vn.hoso.StepStarted"),
        ("ce_type", b"com.example.StepStarted.v1"),
        ("ce_subject", b"somebody else"),
        ("ce_sequence", b"7"),
        ("ce_sequence", b"0000000000"),
        ("ce_sequence", b"-000000007"),
        ("ce_sequence", "٠٠٠٠٠٠٠٠٠٧".encode()),
        ("ce_id", b"not an id"),
        ("ce_id", b"\xff\xfe"),
        ("ce_id", b""),
    ],
)
def test_a_record_with_a_wrong_header_is_a_stranger(name: str, value: bytes) -> None:
    topic, key, headers, body = event()
    headers[name] = value
    with pytest.raises(ForeignRecord):
        read_record(topic, key, headers.items(), body)


def test_a_record_with_a_wrong_or_no_key_no_value_or_a_double_header_is_a_stranger() -> None:
    topic, key, headers, value = event()
    pairs = list(headers.items())
    records: list[tuple[str, bytes | None, Headers, bytes | None]] = [
        (topic, b"another", pairs, value),
        (topic, None, pairs, value),
        (topic, key, pairs, None),
        (topic, key, [*pairs, ("ce_id", b"x")], value),
        ("somebody.elses.v1", key, pairs, value),
    ]
    for record in records:
        with pytest.raises(ForeignRecord):
            read_record(*record)


async def test_strangers_on_the_broker_are_counted_and_break_no_zero(world: World) -> None:
    await world.write()
    received = world.find("DossierReceived")
    heartbeat: Headers = [
        ("ce_specversion", b"1.0"), ("ce_id", str(uuid4()).encode()), ("ce_subject", b"beat"),
        ("ce_source", b"/hoso/intake/internal.submissions.v1"), ("ce_type", b"vn.hoso.SubmissionHeartbeat.v1"),
        ("ce_sequence", b"0000000001"),
    ]  # fmt: skip
    await world.produce_raw(
        (LIFECYCLE, None, [], b"{}"),
        (LIFECYCLE, b"\xff", [("ce_id", b"\xff")], b"\x00"),
        (LIFECYCLE, str(uuid4()).encode(), received.headers(), b"{}"),
        (SUBMISSIONS, b"beat", heartbeat, b"{}"),
    )
    report = await verify.run(world.endpoints(), settle_seconds=0)
    assert report.figures() == HEALTHY
    content = report.as_json()
    assert content["set_aside"]["strangers"] == 3
    assert content["counts"]["kafka"]["heartbeats"] == 1
    assert [stranger["topic"] for stranger in content["details"]["strangers"]] == [LIFECYCLE] * 3


async def test_an_event_with_unreadable_content_still_counts_for_the_order(world: World) -> None:
    await world.write()
    broken = world.emit(LIFECYCLE, world.submitted[0], "DossierReceived")
    await world.produce_raw((LIFECYCLE, str(broken.dossier).encode(), broken.headers(), b"not json"))
    report = await verify.run(world.endpoints(), settle_seconds=0)
    assert report.figures() == HEALTHY
    assert report.as_json()["details"]["strangers"][0]["reason"] == "DossierReceived cannot be read"


async def test_every_record_is_read_even_when_the_broker_reports_too_low_an_end(world: World) -> None:
    """tansu reports the first record of the last batch as the end; batches of hundreds must still be read whole."""
    dossier = uuid4()
    world.broker = [Event(LIFECYCLE, dossier, sequence, "StepStarted", {}) for sequence in range(1, 1201)]
    await world.produce(*world.broker)
    with Notebook() as notebook:
        stream = await read_stream(notebook, world.kafka)
        assert stream.complete
        assert notebook.number("select max(sequence) from sightings") == 1200
        assert notebook.number("select count(*) from sightings") == 1200


async def test_without_a_broker_the_proof_is_incomplete_and_reports_no_false_defects(world: World) -> None:
    await world.write()
    world.kafka = f"127.0.0.1:{free_port()}"
    report = await verify.run(world.endpoints(), settle_seconds=0)
    assert report.figures() == HEALTHY | {"order_violations": None, "repeated_effects": None}
    assert report.as_json()["complete"] is False
    assert report.troubles
    assert verify.exit_code(report) == 1


async def test_too_little_time_for_the_broker_leaves_the_proof_incomplete(world: World) -> None:
    await world.write()
    report = await verify.run(world.endpoints(), settle_seconds=0, kafka_seconds=0)
    assert report.as_json()["complete"] is False
    assert verify.exit_code(report) == 1
