"""Submitting over HTTP: wrong input is a problem in both languages, repeats no value and leaves nothing stored."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest

from services.workflow.procedures import shipped
from shared.contract.partitions import STAY_S, lane_of
from tests.intake.conftest import BIRTH, CLOSED, DOCUMENTS, NOT_YET, Intake, assert_problem, example

PATH = "/v1/dossiers"
JSON = {"Content-Type": "application/json"}
LIMIT = 256 * 1024
SENT = "Zyxwvut 099999999"
"""A value no answer may repeat."""


def changed(path: str, value: Any, code: str = BIRTH) -> dict[str, Any]:
    """The example with another value at `path`; `None` removes it."""
    body = example(code)
    *way, last = path.split("/")
    place: Any = body
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if value is None:
        del place[int(last) if isinstance(place, list) else last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return body


@pytest.mark.parametrize("code", sorted(shipped()))
async def test_every_procedures_example_is_accepted_as_it_is(intake: Intake, code: str) -> None:
    before = await intake.stored()
    answer = await intake.submit(DOCUMENTS[code]["example"])
    assert answer.status_code == 201, answer.text
    accepted = answer.json()
    assert set(accepted) == {
        "dossier_id",
        "tracking_secret",
        "status",
        "procedure_code",
        "procedure_version",
        "submitted_at",
    }
    assert (accepted["status"], accepted["procedure_code"]) == ("submitted", code)
    assert accepted["submitted_at"].startswith("2025-08-25T09:")
    after = await intake.stored()
    assert (after["submissions"], after["events"]) == (before["submissions"] + 1, before["events"] + 1)


def test_there_are_at_least_eighteen_procedures() -> None:
    assert len(shipped()) >= 18


RULES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown procedure": (example(procedure_code="9.999999"), "procedure_code", "unknown-procedure"),
    "not yet valid": (example(NOT_YET), "procedure_code", "procedure-not-yet-valid"),
    "closed": (example(CLOSED), "procedure_code", "procedure-closed"),
    "no procedure": (changed("procedure_code", None), "procedure_code", "missing"),
    "procedure as number": (changed("procedure_code", 1.001193), "procedure_code", "wrong-type"),
    "unknown component": (
        changed("components/0/code", "passport_of_the_cat"),
        "components/0/code",
        "unknown-component",
    ),
    "missing component": (changed("components/0", None), "components", "missing-component"),
    "no components": (changed("components", None), "components", "missing"),
    "kind of component": (changed("components/0/kind", SENT), "components/0/kind", "not-one-of"),
    "impossible date": (changed("applicant/birth_date", "1994-02-30"), "applicant/birth_date", "impossible-date"),
    "date as words": (changed("applicant/birth_date", "hôm qua"), "applicant/birth_date", "impossible-date"),
    "date in future": (changed("applicant/birth_date", "2031-01-01"), "applicant/birth_date", "date-in-future"),
    "short number": (changed("applicant/personal_id", "02519400001"), "applicant/personal_id", "wrong-number-shape"),
    "number with letters": (
        changed("applicant/personal_id", "0251940000O1"),
        "applicant/personal_id",
        "wrong-number-shape",
    ),
    "number in other digits": (
        changed("applicant/personal_id", "٠٢٥١٩٤٠٠٠٠٠١"),
        "applicant/personal_id",
        "wrong-number-shape",
    ),
    "channel": (changed("channel", SENT), "channel", "not-one-of"),
    "unknown field": (example(zyxwvut=SENT), "zyxwvut", "unknown-field"),
    "subject is text": (changed("subject", SENT), "subject", "wrong-type"),
    "subject's unknown field": (changed("subject/zyxwvut", SENT), "subject/zyxwvut", "unknown-field"),
    "empty subject": (changed("subject", {}), "subject/child", "missing"),
    "control characters": (changed("applicant/full_name", SENT + "\x07"), "applicant/full_name", "control-characters"),
    "name too long": (changed("applicant/full_name", SENT * 50), "applicant/full_name", "too-long"),
    "phone": (changed("applicant/phone", SENT), "applicant/phone", "wrong-phone"),
    "copies": (example(copies=10**30), "copies", "wrong-type"),
    "no copies": (example(copies=0), "copies", "out-of-range"),
    "copies as truth": (example(copies=True), "copies", "wrong-type"),
}


@pytest.mark.parametrize("case", RULES)
async def test_what_breaks_a_rule_is_422_and_leaves_nothing(intake: Intake, case: str) -> None:
    body, field, code = RULES[case]
    before = await intake.stored()
    answer = await intake.submit(body)
    problem = assert_problem(answer, 422)
    assert (field, code) in {(row["field"], row["code"]) for row in problem["errors"]}, problem["errors"]
    assert SENT not in answer.text
    assert await intake.stored() == before


@pytest.mark.parametrize("code", sorted(shipped()))
async def test_a_subject_that_fails_its_schema_is_422_in_every_procedure(intake: Intake, code: str) -> None:
    before = await intake.stored()
    for name in DOCUMENTS[code]["example"]["subject"]:
        answer = await intake.submit(changed(f"subject/{name}", [{"zyxwvut": SENT}], code))
        problem = assert_problem(answer, 422)
        assert all(row["field"].startswith("subject/") for row in problem["errors"])
        assert SENT not in answer.text
    assert await intake.stored() == before


async def test_everything_wrong_is_said_at_once(intake: Intake) -> None:
    body = changed("applicant/birth_date", "1994-02-30")
    body["applicant"]["personal_id"] = SENT
    del body["components"][0]["kind"]
    problem = assert_problem(await intake.submit(body), 422)
    assert {row["field"] for row in problem["errors"]} == {
        "applicant/birth_date",
        "applicant/personal_id",
        "components/0/kind",
    }


GOOD = json.dumps(example(channel="direct")).encode()
assert b'"direct"' in GOOD
SYNTAX: dict[str, tuple[bytes, set[int]]] = {
    "nothing": (b"", {400}),
    "not JSON": (b"{procedure_code: 1}", {400}),
    "half": (GOOD[:-5], {400}),
    "two": (GOOD + GOOD, {400}),
    "array": (b"[" + GOOD + b"]", {400}),
    "text": (b'"Zyxwvut"', {400}),
    "null": (b"null", {400}),
    "invalid UTF-8": (GOOD.replace(b'"direct"', b'"dir\xffect"'), {400}),
    "UTF-16": (json.dumps(example()).encode("utf-16"), {400}),
    "overlong UTF-8": (GOOD.replace(b'"direct"', b'"dir\xc0\x80ect"'), {400}),
    "raw NUL": (GOOD.replace(b'"direct"', b'"dir\x00ect"'), {400}),
    "escaped NUL": (GOOD.replace(b'"direct"', b'"dir\\u0000ect"'), {400}),
    "NUL in a name": (GOOD[:-1] + b', "a\\u0000b": 1}', {400}),
    "lone surrogate": (GOOD.replace(b'"direct"', b'"\\ud800"'), {400}),
    "surrogates swapped": (GOOD.replace(b'"direct"', b'"\\udc00\\ud800"'), {400}),
    "doubled key": (GOOD[:-1] + b', "channel": "post"}', {400}),
    "doubled deep key": (GOOD.replace(b'"full_name"', b'"full_name": "A", "full_name"', 1), {400}),
    "deep": (GOOD[:-1] + b', "x": ' + b"[" * 60 + b"]" * 60 + b"}", {422}),
    "deeper": (GOOD[:-1] + b', "x": ' + b"[" * 600 + b"]" * 600 + b"}", {400}),
    "deepest": (GOOD[:-1] + b', "x": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", {400}),
    "deep objects": (b'{"subject":' * 300 + b"1" + b"}" * 300, {400}),
    "huge number": (GOOD[:-1] + b', "copies": 1' + b"0" * 5_000 + b"}", {400}),
    "huge exponent": (GOOD[:-1] + b', "copies": 1e999}', {400}),
    "large integer": (GOOD[:-1] + b', "copies": 123456789012345678901234567890}', {422}),
    "tiny number": (GOOD[:-1] + b', "copies": 1e-400}', {422}),
    "infinity": (GOOD[:-1] + b', "copies": Infinity}', {400}),
    "many values": (GOOD[:-1] + b', "x": [' + b"0," * 60_000 + b"0]}", {422}),
    "many names": (b"{" + b",".join(b'"k%d":0' % i for i in range(20_000)) + b"}", {422}),
}


@pytest.mark.parametrize("case", SYNTAX)
async def test_what_is_no_clean_json_is_refused_and_leaves_nothing(intake: Intake, case: str) -> None:
    body, statuses = SYNTAX[case]
    before = await intake.stored()
    answer = await intake.counter.post(PATH, content=body, headers={**JSON, **intake.key()})
    assert answer.status_code in statuses, answer.text
    problem = assert_problem(answer, answer.status_code)
    assert "Zyxwvut" not in answer.text
    assert len(problem.get("errors", ())) <= 20
    assert await intake.stored() == before


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml"]
)
async def test_a_wrong_content_type_is_415(intake: Intake, kind: str) -> None:
    before = await intake.stored()
    answer = await intake.counter.post(PATH, content=GOOD, headers={"Content-Type": kind, **intake.key()})
    assert_problem(answer, 415, "wrong-content-type")
    assert await intake.stored() == before


async def test_a_body_over_the_limit_is_413_with_a_length_and_without(intake: Intake) -> None:
    before = await intake.stored()
    padded = GOOD[:-1] + b', "x": "' + b"x" * LIMIT + b'"}'

    async def in_pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(padded), 8_192):
            yield padded[at : at + 8_192]

    for content in (padded, in_pieces()):
        answer = await intake.counter.post(PATH, content=content, headers={**JSON, **intake.key()})
        assert_problem(answer, 413, "too-large")
    assert await intake.stored() == before


async def test_a_body_of_several_megabytes_is_413_and_the_service_goes_on(intake: Intake) -> None:
    before = await intake.stored()
    answer = await intake.counter.post(PATH, content=b" " * 5_000_000, headers={**JSON, **intake.key()})
    assert_problem(answer, 413, "too-large")
    assert await intake.stored() == before
    await intake.submitted()


async def test_a_body_within_the_limit_in_pieces_is_read(intake: Intake) -> None:
    async def in_pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(GOOD), 7):
            yield GOOD[at : at + 7]

    answer = await intake.counter.post(PATH, content=in_pieces(), headers={**JSON, **intake.key()})
    assert answer.status_code == 201


@pytest.mark.parametrize("key", [None, "", "x" * 201, "hai chữ", "a b"])
async def test_a_missing_or_strange_idempotency_key_is_400(intake: Intake, key: str | None) -> None:
    before = await intake.stored()
    headers = {} if key is None else {b"Idempotency-Key": key.encode()}
    answer = await intake.counter.post(PATH, json=example(), headers=headers)
    problem = assert_problem(answer, 400)
    assert problem["errors"][0]["field"] == "header/Idempotency-Key"
    assert await intake.stored() == before


async def test_without_a_valid_token_it_is_401_and_with_the_wrong_role_403(intake: Intake) -> None:
    before = await intake.stored()
    # 401 and 403 come before the key is read.
    for key in (intake.key(), {}):
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic Y291bnRlcjp4"}):
            answer = await intake.nobody.post(PATH, json=example(), headers={**headers, **key})
            assert_problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        for role in ("signatory", "records_clerk", "ops"):
            async with intake.client(role) as client:
                assert_problem(await client.post(PATH, json=example(), headers=key), 403, "wrong-role")
    assert await intake.stored() == before


async def test_no_such_address_and_no_such_method_are_problems(intake: Intake) -> None:
    assert_problem(await intake.counter.get("/v1/nothing"), 404, "not-found")
    assert_problem(await intake.counter.delete(PATH), 405, "method-not-allowed")
    assert_problem(await intake.counter.get(f"{PATH}/Zyxwvut"), 422)


async def test_the_submission_is_shown_without_persons(intake: Intake) -> None:
    accepted = await intake.submitted()
    async with intake.client("ops") as client:
        answer = await client.get(f"{PATH}/{accepted['dossier_id']}")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["procedure_code"]) == ("submitted", BIRTH)
    assert {part["code"] for part in body["components"]} == {part["code"] for part in example()["components"]}
    assert example()["applicant"]["full_name"] not in answer.text


async def test_personal_data_are_stored_sealed_and_are_in_no_log(intake: Intake) -> None:
    name = "Zyxwvut Thị Kín"
    body = changed("applicant/full_name", name)
    accepted = await intake.submitted(body)
    data = await intake.pool.fetchval("select data from events where dossier_id = $1::uuid", accepted["dossier_id"])
    assert name.encode() not in data
    row = await intake.pool.fetchval(
        "select s::text from submissions s where dossier_id = $1::uuid", accepted["dossier_id"]
    )
    assert name not in row
    log = intake.service.log.read_text("utf-8")
    assert name not in log
    assert "Traceback" not in log
    assert accepted["tracking_secret"] not in log


async def test_the_service_shows_its_own_openapi_document(intake: Intake) -> None:
    document = (await intake.nobody.get("/openapi.json")).json()
    assert {"/v1/dossiers", "/v1/dossiers/{dossier_id}", "/v1/dossiers/{dossier_id}/supplement"} <= set(
        document["paths"]
    )


async def test_a_client_that_hangs_up_in_the_middle_leaves_nothing(intake: Intake) -> None:
    before = await intake.stored()

    async def breaks_off() -> AsyncIterator[bytes]:
        yield GOOD[:100]
        raise ConnectionAbortedError

    with pytest.raises((ConnectionAbortedError, httpx2.HTTPError)):
        await intake.counter.post(PATH, content=breaks_off(), headers={**JSON, **intake.key()})
    await intake.submitted()
    assert (await intake.stored())["submissions"] == before["submissions"] + 1


async def test_dossiers_filed_together_share_a_lane(intake: Intake) -> None:
    """Ids stay in one lane for a moment, so that the fixed costs of a batch are paid once for several dossiers."""
    answers = await asyncio.gather(*(intake.submitted() for _ in range(24)))
    ids = sorted(UUID(answer["dossier_id"]) for answer in answers)
    lanes = [lane_of(str(one)) for one in ids]
    changes = sum(before != after for before, after in itertools.pairwise(lanes))
    took_s = ((ids[-1].int >> 80) - (ids[0].int >> 80)) / 1000
    # Ids of the same millisecond are in no order: one change of the lane may look like three.
    assert changes <= 3 * (took_s / STAY_S + 1)
