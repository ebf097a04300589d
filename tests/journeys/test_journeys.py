"""The journeys of dossiers, end to end: four processes, PostgreSQL, the broker, the simulated outside systems."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.fixtures.waiting import wait_until
from tests.journeys.town import ALLOWANCE, BIRTH, BUSINESS, COPY, Filed, Town

LIFECYCLE = "dossier.lifecycle.v1"
NEVER = {"latency_p50_s": 600.0, "latency_p95_s": 600.0}
"""A registry that accepts everything and answers nothing for ten minutes."""


async def notices(town: Town, filed: Filed, kind: str, channel: str) -> list[dict[str, Any]]:
    status, page = await town.call("notify", "GET", f"/v1/notices?dossier_id={filed.dossier_id}", "ops")
    assert status == 200, page
    return [row for row in page["items"] if row["kind"] == kind and row["channel"] == channel]


async def test_a_birth_with_a_healthy_registry_passes_through_all_four_processes(town: Town) -> None:
    birth = await town.file(BIRTH, "H44.J01")
    await town.until_event(birth, "IdNumberIssued")
    await town.work(birth, "appraisal", "approval", "issuing", "return")
    dossier = await town.dossier(birth)
    assert dossier["national_status"] == 10
    assert dossier["result"]["number"] == dossier["dossier_code"]
    types = [entry["type"] for entry in dossier["timeline"]]
    assert types[:2] == ["DossierRecorded", "DossierReceived"]
    assert types[-1] == "ResultReturned"
    assert types.count("IdNumberIssued") == 1
    assert [entry["sequence"] for entry in dossier["timeline"]] == list(range(1, len(types) + 1))


async def test_a_birth_with_a_late_number_is_held_decided_by_the_signatory_and_entered_afterwards(
    town: Town,
) -> None:
    await town.registry(**NEVER)
    try:
        birth = await town.file(BIRTH, "H44.J02")
        await town.work(birth, "appraisal", "approval", "issuing")
        await town.until_event(birth, "IdNumberDelayed")
        assert "return" not in [task["stage"] for task in await town.tasks(birth.agency)]
        held = await town.task(birth, "id_number", bound_s=150)
        assert (held["role"], held["outcomes"][0]["code"]) == ("signatory", "return_without_number")
        await town.complete(held)
        await town.work(birth, "return")
        dossier = await town.dossier(birth)
        assert (dossier["national_status"], "IdNumberIssued" in await town.types(birth)) == (10, False)
    finally:
        await town.registry()
    late = await town.task(birth, "id_number")
    assert late["role"] == "records_clerk"
    assert (await town.complete(late))[0] == 200
    dossier = await town.dossier(birth)
    assert [entry["type"] for entry in dossier["timeline"]][-1] == "IdNumberIssued"
    assert dossier["national_status"] == 10


async def test_a_copy_in_one_visit_is_signed_and_returned_at_the_counter(town: Town) -> None:
    copy = await town.file(COPY, "H44.J03")
    task = await town.task(copy, "return")
    assert (await town.complete(task, fields={"signed_by": "Lê Văn Mẫu", "signature": "wet"}))[0] == 200
    assert (await town.dossier(copy))["national_status"] == 10


async def test_an_online_dossier_is_received_supplemented_and_its_clock_restarts(town: Town) -> None:
    filed = await town.file(ALLOWANCE, "H44.J04", online=True)
    await town.work(filed, "reception")
    task = await town.task(filed, "appraisal")
    assert (await town.complete(task, "ask_supplement", note="Thiếu giấy tờ"))[0] == 200
    dossier = await town.dossier(filed)
    assert (dossier["national_status"], dossier["clocks"][0]["running"]) == (5, False)
    component = {"code": "disability_certificate", "kind": "electronic", "digitised": True}
    status, _ = await town.call(
        "intake",
        "POST",
        f"/v1/dossiers/{filed.dossier_id}/supplement?secret={filed.secret}",
        "",
        {"components": [component]},
        **{"Idempotency-Key": str(uuid4())},
    )
    assert status == 202
    await town.until_event(filed, "ClockRestarted")
    assert (await town.task(filed, "appraisal"))["task_id"] != task["task_id"]


async def test_a_withdrawal_and_a_completion_that_race_have_one_winner_and_the_loser_is_declined(town: Town) -> None:
    races = [await town.file(COPY, "H44.J05") for _ in range(6)]
    tasks = [await town.task(each, "return") for each in races]

    async def withdraw(filed: Filed, after_s: float) -> int:
        await asyncio.sleep(after_s)
        path = f"/v1/dossiers/{filed.dossier_id}/withdrawal"
        key = {"Idempotency-Key": str(uuid4())}
        return (await town.call("intake", "POST", path, "counter", {"reason": "Không cần nữa"}, **key))[0]

    async def complete(task: dict[str, Any], after_s: float) -> int:
        await asyncio.sleep(after_s)
        return (await town.complete(task))[0]

    withdrawn = [withdraw(filed, 0.0) for filed in races]
    completed = [complete(task, number * 0.02) for number, task in enumerate(tasks)]
    statuses = await asyncio.gather(*withdrawn, *completed)
    assert set(statuses[: len(races)]) == {202}
    for filed, status in zip(races, statuses[len(races) :], strict=True):

        async def is_decided(filed: Filed = filed) -> set[str]:
            return {"DossierWithdrawn", "RequestDeclined"} & set(await town.types(filed))

        decision = await wait_until(is_decided, 30)
        types = await town.types(filed)
        if status == 200:
            assert (decision, types.count("ResultReturned")) == ({"RequestDeclined"}, 1)
        else:
            assert status in (404, 409)
            assert (decision, types.count("ResultReturned")) == ({"DossierWithdrawn"}, 0)


async def test_an_opened_procedure_receives_the_recorded_dossiers_oldest_first(town: Town) -> None:
    queue = [await town.file(BUSINESS, "H44.J06") for _ in range(5)]
    for filed in queue:
        await town.until_event(filed, "DossierRecorded")
    assert not await town.tasks("H44.J06")
    _, rules = await town.call("workflow", "GET", f"/v1/procedures/{BUSINESS}", "ops")
    assert rules["intake_mode"] == "record_only"
    opened = {**rules, "intake_mode": "open"}
    status, _ = await town.call("workflow", "PUT", f"/v1/procedures/{BUSINESS}", "centre_director", opened)
    assert status == 200
    queue.append(await town.file(BUSINESS, "H44.J06"))
    for filed in queue:
        await town.until_event(filed, "DossierReceived")
    codes = [(await town.dossier(filed))["dossier_code"] for filed in queue]
    assert codes == sorted(codes)
    assert len(set(codes)) == len(queue)


async def test_an_applicant_gets_one_message_per_event_and_can_track_the_dossier_with_the_secret(town: Town) -> None:
    filed = await town.file(ALLOWANCE, "H44.J07")

    async def is_sent() -> bool:
        return any(row["state"] == "sent" for row in await notices(town, filed, "received", "sms"))

    await wait_until(is_sent, 30)
    assert len(await notices(town, filed, "received", "sms")) == 1
    code = (await town.dossier(filed))["dossier_code"]
    for reference in (filed.dossier_id, code):
        tracked = await town.once("workflow", "GET", f"/v1/track/{reference}?secret={filed.secret}", "")
        assert (tracked.status_code, tracked.json()["dossier_code"]) == (200, code)
        other = await town.once("workflow", "GET", f"/v1/track/{reference}?secret={'0' * len(filed.secret)}", "")
        assert other.status_code == 404
    assert "Trần" not in tracked.text


async def _feed(town: Town) -> dict[str, list[tuple[int, str]]]:
    """Read the whole HTTP feed. Returns dossier -> [(sequence, ce_id)] in the feed's order."""
    events: dict[str, list[tuple[int, str]]] = defaultdict(list)
    path = "/v1/events?limit=200"
    while True:
        answer = await town.once("workflow", "GET", path, "system")
        for event in answer.json():
            events[event["subject"]].append((int(event["sequence"]), event["id"]))
        if not answer.json():
            return dict(events)
        path = answer.headers["link"].partition("<")[2].partition(">")[0]


async def test_the_feed_has_the_same_events_as_kafka_in_the_same_order_with_the_same_ids(town: Town) -> None:
    await town.prove()
    feed = await _feed(town)
    assert len(feed) >= 10
    count = sum(map(len, feed.values()))
    events: dict[str, list[tuple[int, str]]] = defaultdict(list)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=town.endpoints["kafka"], enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(LIFECYCLE, partition) for partition in range(12)])

        async def all_are_read() -> bool:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    headers = {name: value.decode() for name, value in record.headers}
                    dossier, sequence = headers["ce_subject"], int(headers["ce_sequence"])
                    # Take each dossier's next event only: after a lost broker all events are sent again.
                    if sequence == len(events[dossier]) + 1:
                        events[dossier].append((sequence, headers["ce_id"]))
            return sum(map(len, events.values())) >= count

        await wait_until(all_are_read, 30)
    finally:
        await consumer.stop()
    assert dict(events) == feed


async def test_no_log_of_any_process_holds_a_personal_number_or_a_telephone(town: Town) -> None:
    submission = town.submission(BIRTH, "H44.J08")
    number = submission["applicant"]["personal_id"]
    key = {"Idempotency-Key": str(uuid4())}
    bad = {**submission, "channel": number, "applicant": {**submission["applicant"], "phone": number}}
    assert (await town.once("intake", "POST", "/v1/dossiers", "counter", bad, **key)).status_code == 422
    assert (await town.once("workflow", "GET", f"/v1/track/{number}?secret={number}", "")).status_code == 404
    assert (await town.once("workflow", "GET", f"/v1/tasks?after={number}", "ops")).status_code == 400
    filed = await town.file(BIRTH, "H44.J08")
    await town.work_all([filed])
    logs = list(town.stack.data.rglob("*.log"))
    assert {"intake.log", "workflow.log", "idlookup.log", "notify.log"} <= {path.name for path in logs}
    for path in logs:
        text = path.read_text(errors="replace")
        assert not [number for number in town.numbers if number in text], path.name
        # The registry's numbers of children born in 2025, and the telephone numbers of the examples.
        assert not re.search(r"(?<![\d.])(\d{3}[23]25\d{6}|09000\d{5})(?!\d)", text), path.name


async def test_after_all_journeys_nothing_is_lost_repeated_or_out_of_order(town: Town) -> None:
    report = await town.prove()
    assert report.registry is not None
    assert report.registry["numbers_issued"] >= 3


async def test_the_journeys_answers_fit_the_openapi_documents(town: Town) -> None:
    """`Town.once` compares every answer of this package's tests; this one makes sure that it did."""
    await town.once("workflow", "GET", "/v1/tasks?limit=5", "ops")
    await town.once("workflow", "GET", "/v1/stages", "ops")
    await town.once("notify", "GET", "/v1/notices?limit=5", "ops")
    await town.once("idlookup", "GET", "/v1/requests?limit=5", "ops")
    await town.once("intake", "GET", "/v1/parked", "ops")
    checked = {(service, path) for service, _, path in town.answers_checked}
    assert {
        ("workflow", "/v1/tasks"),
        ("workflow", "/v1/stages"),
        ("notify", "/v1/notices"),
        ("idlookup", "/v1/requests"),
        ("intake", "/v1/parked"),
    } <= checked
