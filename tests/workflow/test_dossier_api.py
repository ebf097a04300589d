"""One dossier over HTTP: what officers see, and what the citizen with the secret sees."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import jsonschema
import pytest

from deploy.docs import schemas
from services.workflow import state_records
from shared.contract.envelope import new_id
from shared.privacy.tracking import tracking_secret
from tests.workflow.conftest import Desk, problem
from tests.workflow.lifecycle_scenes import BIRTH, COPIES, LAND

RESULT = {"number": "12/2025", "book": "01/KS", "signed_by": "Nguyễn Văn A", "signed_as": "KT.", "signature": "wet"}


def secret(desk: Desk, dossier_id: object) -> str:
    return tracking_secret(desk.app.secret_key, UUID(str(dossier_id)))


async def test_a_dossier_shows_its_state_clock_and_timeline(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    shown = await desk.get(f"/v1/dossiers/{dossier_id}")
    assert shown["dossier_id"] == str(dossier_id)
    assert (shown["state"], shown["national_status"], shown["procedure_version"]) == ("in_progress", 4, 1)
    assert shown["due_at"].startswith("2025-08-27T17:00:00")
    assert shown["result"] is None
    assert [row["sequence"] for row in shown["timeline"]] == [1, 2, 3, 4]
    assert shown["timeline"][0].keys() == {"sequence", "type", "at", "office_at"}
    [clock] = shown["clocks"]
    assert (clock["kind"], clock["running"]) == ("statutory", True)


async def test_before_workflow_has_read_a_submission_it_is_not_yet_known(desk: Desk) -> None:
    problem(await desk.call("GET", f"/v1/dossiers/{uuid4()}"), 404, "not-yet-known")


async def test_the_citizen_sees_code_status_due_date_and_no_person(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    code = (await desk.get(f"/v1/dossiers/{dossier_id}"))["dossier_code"]
    by_code = await desk.http.get(f"/v1/track/{code}?secret={secret(desk, dossier_id)}")
    by_id = await desk.http.get(f"/v1/track/{dossier_id}?secret={secret(desk, dossier_id)}")
    assert by_code.status_code == 200
    assert by_code.json() == by_id.json()
    tracked = by_code.json()
    assert tracked.keys() == {"dossier_code", "state", "status", "due_at", "timeline"}
    assert (tracked["dossier_code"], tracked["status"]) == (code, 4)
    assert "specialist" not in by_code.text


async def test_a_wrong_secret_looks_like_an_unknown_dossier(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    code = (await desk.get(f"/v1/dossiers/{dossier_id}"))["dossier_code"]
    unknown = await desk.http.get(f"/v1/track/H44.XXX-250827-9999?secret={secret(desk, dossier_id)}")
    problem(unknown, 404, "unknown-dossier")
    for path in (
        f"{code}?secret={secret(desk, new_id())}",
        f"{code}?secret=",
        f"{code}",
        f"{dossier_id}?secret={secret(desk, dossier_id)[:-1]}",
        f"{dossier_id}?secret=%C3%A9%F0%9F%98%80",
        f"{new_id()}?secret={secret(desk, dossier_id)}",
        f"00000000-0000-0000-0000-000000000000?secret={secret(desk, dossier_id)}",
    ):
        answer = await desk.http.get(f"/v1/track/{path}")
        assert (answer.status_code, answer.content) == (404, unknown.content), path
        assert {k: v for k, v in answer.headers.items() if k != "date"} == dict(unknown.headers)


async def test_the_result_is_an_object_that_the_later_steps_keep(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    path = f"/v1/dossiers/{dossier_id}/result"
    assert (await desk.call("PUT", path, "specialist", RESULT)).json() == RESULT
    await desk.forward(dossier_id, "appraisal", "approval", "issuing")
    result = (await desk.get(f"/v1/dossiers/{dossier_id}"))["result"]
    assert RESULT.items() <= result.items()
    signed = await desk.last_event(dossier_id, "ResultSigned")
    assert (signed["signed_as"], signed["signature"]) == ("KT.", "wet")
    assert "Nguyễn" not in str(signed)


async def test_a_result_that_is_not_valid_is_refused_and_nothing_is_stored(desk: Desk) -> None:
    dossier_id = await desk.submit(COPIES)
    path = f"/v1/dossiers/{dossier_id}/result"
    for wrong in ({"signature": "stamp"}, {"signed_as": "XX"}, {"number": ""}, {"sha256": "x"}, {"colour": "red"}):
        problem(await desk.call("PUT", path, "counter", {**RESULT, **wrong}), 422, "invalid")
    problem(await desk.call("PUT", path, "ops", RESULT), 403, "wrong-role")
    problem(await desk.call("PUT", f"/v1/dossiers/{uuid4()}/result", "counter", RESULT), 404, "unknown-dossier")
    assert (await desk.get(f"/v1/dossiers/{dossier_id}"))["result"] is None
    recorded = await desk.submit(LAND)
    problem(await desk.call("PUT", f"/v1/dossiers/{recorded}/result", "counter", RESULT), 409, "not-received")
    await desk.forward(dossier_id, "return")
    problem(await desk.call("PUT", path, "counter", RESULT), 409, "already-ended")


SCAN = {"signature": "wet_scanned", "sha256": "0" * 64}


async def test_what_was_signed_stays_as_it_was_signed(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    path = f"/v1/dossiers/{dossier_id}/result"
    await desk.call("PUT", path, "signatory", RESULT)
    await desk.forward(dossier_id, "appraisal")
    corrected = {**RESULT, "signed_by": "Trần Thị B"}
    assert (await desk.call("PUT", path, "signatory", corrected)).status_code == 200, "not signed yet"
    await desk.forward(dossier_id, "approval")
    for wrong in (
        {"signed_by": "Nguyễn Văn A"},
        {"signed_as": "TM."},
        {"signature": "digital"},
        {"signature": "wet_scanned"},
        {"number": "13/2025"},
        {**SCAN, "number": "13/2025"},
    ):
        for role in ("counter", "specialist", "signatory", "records_clerk"):
            problem(await desk.call("PUT", path, role, {**corrected, **wrong}), 409, "already-signed")
    assert (await desk.get(f"/v1/dossiers/{dossier_id}"))["result"] == corrected
    booked = {**corrected, "book": "02/KS"}
    assert (await desk.call("PUT", path, "records_clerk", booked)).json() == booked
    assert (await desk.call("PUT", path, "records_clerk", {**booked, **SCAN})).json() == {**booked, **SCAN}
    problem(await desk.call("PUT", path, "counter", {**booked, **SCAN, "sha256": "1" * 64}), 409, "already-signed")


async def test_a_result_that_went_back_to_the_signatory_may_be_changed_again(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    path = f"/v1/dossiers/{dossier_id}/result"
    await desk.call("PUT", path, "signatory", RESULT)
    await desk.forward(dossier_id, "appraisal", "approval")
    back = await desk.complete(await desk.task_of(dossier_id, "issuing"), "send_back", note="Sai tên")
    assert back.status_code == 200
    changed = {**RESULT, "signed_by": "Trần Thị B"}
    assert (await desk.call("PUT", path, "signatory", changed)).status_code == 200


async def test_the_scan_of_a_wet_signature_may_come_after_the_hand_over_and_nothing_else(desk: Desk) -> None:
    dossier_id = await desk.submit(COPIES)
    path = f"/v1/dossiers/{dossier_id}/result"
    await desk.call("PUT", path, "counter", RESULT)
    await desk.forward(dossier_id, "return")
    for wrong in ({**SCAN, "book": "9"}, {**SCAN, "signed_by": "x"}, {"signature": "wet_scanned"}, {"book": "9"}):
        problem(await desk.call("PUT", path, "counter", {**RESULT, **wrong}), 409, "already-ended")
    scanned = {**RESULT, **SCAN}
    assert (await desk.call("PUT", path, "counter", scanned)).json() == scanned
    assert (await desk.call("PUT", path, "counter", scanned)).status_code == 200, "put twice, it changes nothing"
    problem(await desk.call("PUT", path, "counter", {**scanned, "sha256": "1" * 64}), 409, "already-ended")
    problem(await desk.call("PUT", path, "counter", RESULT), 409, "already-ended")


@pytest.mark.parametrize(("signed", "changed"), [("digital", "wet_scanned"), ("digital", "wet"), ("wet", "digital")])
async def test_only_a_wet_signature_is_scanned_later_and_no_kind_becomes_another(
    desk: Desk, signed: str, changed: str
) -> None:
    dossier_id = await desk.submit(BIRTH)
    path = f"/v1/dossiers/{dossier_id}/result"
    before = {**RESULT, "signature": signed}
    await desk.call("PUT", path, "signatory", before)
    await desk.forward(dossier_id, "appraisal", "approval")
    after = {**before, "signature": changed, "sha256": "0" * 64}
    problem(await desk.call("PUT", path, "signatory", after), 409, "already-signed")
    assert (await desk.get(f"/v1/dossiers/{dossier_id}"))["result"] == before


async def test_a_refused_dossier_takes_no_scan(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    path = f"/v1/dossiers/{dossier_id}/result"
    await desk.call("PUT", path, "signatory", RESULT)
    await desk.complete(await desk.task_of(dossier_id, "appraisal"), "refuse", note="x")
    problem(await desk.call("PUT", path, "counter", {**RESULT, **SCAN}), 409, "already-ended")


async def test_spaces_around_the_texts_of_a_result_are_removed_and_a_blank_text_is_refused(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    path = f"/v1/dossiers/{dossier_id}/result"
    for name in ("number", "book", "signed_by"):
        problem(await desk.call("PUT", path, "specialist", {**RESULT, name: " \t "}), 422, "invalid")
    spaced = {**RESULT, "number": " 12/2025 ", "signed_by": "Nguyễn Văn A "}
    assert (await desk.call("PUT", path, "specialist", spaced)).json() == RESULT


async def test_the_compacted_state_is_the_dossier_as_it_is_now(desk: Desk) -> None:
    dossier_id = await desk.submit(COPIES)
    await desk.forward(dossier_id, "return")
    [record] = await state_records.builder(desk.service.office)(desk.pool, [dossier_id])
    state = json.loads(record.value)
    assert (state["state"], state["national_status"]) == ("returned", 10)
    assert state["as_of_sequence"] == len(await desk.event_types(dossier_id))
    assert "sealed" not in str(record.value)


async def test_a_state_record_is_as_it_is_documented(desk: Desk) -> None:
    """Its sequence is the lifecycle's, its id is new at every send, its times have the offset of Vietnam."""
    dossier_id = await desk.submit(COPIES)
    first, again = [(await state_records.builder(desk.service.office)(desk.pool, [dossier_id]))[0] for _ in range(2)]
    state, headers = json.loads(first.value), dict(first.headers)
    schema = schemas.state_schema()
    jsonschema.validate(state, schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    assert state.keys() == schema["properties"].keys()
    assert int(headers["ce_sequence"]) == state["as_of_sequence"]
    assert headers["ce_id"] != dict(again.headers)["ce_id"]
    assert state["due_at"].endswith("+07:00")
    assert state["office_at"].endswith("+07:00")
    received = await desk.last_event(dossier_id, "DossierReceived")
    assert state["due_at"] == received["due_at"]


async def test_codes_run_by_agency_and_day(desk: Desk) -> None:
    codes = []
    for office, agency in (("27T09", "A1"), ("27T10", "A1"), ("27T10", "A2"), ("28T09", "A1")):
        desk.set_clock(f"2025-08-{office}:00:00+07:00")
        dossier_id = await desk.submit(COPIES, receiving_agency=agency)
        codes.append((await desk.get(f"/v1/dossiers/{dossier_id}"))["dossier_code"])
    assert codes == ["A1-250827-0001", "A1-250827-0002", "A2-250827-0001", "A1-250828-0001"]


async def test_a_submission_read_after_midnight_has_the_code_of_the_day_it_was_filed(desk: Desk) -> None:
    late, brought = desk.submission(COPIES)
    early = await desk.submit(COPIES)
    desk.set_clock("2025-08-28T00:10:00+07:00")
    await desk.consumer.apply([brought])
    today = await desk.submit(COPIES)
    shown = [await desk.get(f"/v1/dossiers/{dossier_id}") for dossier_id in (early, late, today)]
    assert [row["dossier_code"] for row in shown] == [
        "H44.XXX-250827-0001",
        "H44.XXX-250827-0002",
        "H44.XXX-250828-0001",
    ]
    assert shown[1]["clocks"][0]["started_at"].startswith("2025-08-27T09:00")
