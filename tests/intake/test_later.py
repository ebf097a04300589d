"""After the submission: contents, supplements, withdrawals; by token or by the citizen's tracking secret."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from shared.contract.envelope import new_id
from tests.fixtures.waiting import wait_until
from tests.intake.conftest import Intake, assert_problem, example

PDF = {"Content-Type": "application/pdf"}
FILE = b"%PDF-1.7\n" + bytes(range(256)) * 3_000
SHA = hashlib.sha256(FILE).hexdigest()
LIMIT = 50 * 1024 * 1024


def path(accepted: dict[str, Any], what: str) -> str:
    return f"/v1/dossiers/{accepted['dossier_id']}/{what}"


def content_path(accepted: dict[str, Any], code: str = "birth_declaration") -> str:
    return path(accepted, f"components/{code}/content")


def part(code: str = "birth_notification", **more: Any) -> dict[str, Any]:
    return {"code": code, "kind": "copy", **more}


REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "supplement": ({"components": [part()], "note": "Bổ sung bản chính."}, "SupplementSubmitted"),
    "withdrawal": ({"reason": "Nộp nhầm nơi."}, "WithdrawalRequested"),
}


async def types_of(intake: Intake, accepted: dict[str, Any]) -> list[tuple[int, str]]:
    rows = await intake.pool.fetch(
        "select sequence, type from events where dossier_id = $1::uuid order by sequence", accepted["dossier_id"]
    )
    return [(row["sequence"], row["type"]) for row in rows]


@pytest.mark.parametrize("what", REQUESTS)
async def test_a_request_is_taken_by_token_and_by_secret_once(intake: Intake, what: str) -> None:
    body, fact = REQUESTS[what]
    accepted = await intake.submitted()
    key = intake.key()
    first = await intake.counter.post(path(accepted, what), json=body, headers=key)
    again = await intake.counter.post(path(accepted, what), json=body, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert first.json() == {"dossier_id": accepted["dossier_id"], "status": "submitted", "request": what}
    citizen = await intake.nobody.post(
        path(accepted, what), params={"secret": accepted["tracking_secret"]}, json=body, headers=key
    )
    assert citizen.status_code == 202
    assert await types_of(intake, accepted) == [(1, "DossierSubmitted"), (2, fact), (3, fact)]


async def deadlocks(intake: Intake) -> int:
    found = "select deadlocks from pg_stat_database where datname = current_database()"
    return int(await intake.pool.fetchval(found))


async def test_requests_of_one_dossier_at_once_are_all_taken_and_wait_for_each_other_without_a_deadlock(
    intake: Intake,
) -> None:
    before, sequences = await deadlocks(intake), []
    for _ in range(5):
        accepted = await intake.submitted()
        calls = [
            intake.counter.post(path(accepted, what), json=body, headers=intake.key())
            for what, (body, _) in REQUESTS.items()
            for _ in range(6)
        ]
        calls.append(intake.counter.put(content_path(accepted), content=FILE, headers=PDF))
        answers = await asyncio.gather(*calls)
        assert [answer.status_code for answer in answers] == [202] * 12 + [201]
        sequences.append([sequence for sequence, _ in await types_of(intake, accepted)])
    assert sequences == [list(range(1, 15))] * 5
    assert await deadlocks(intake) == before


@pytest.mark.parametrize("what", REQUESTS)
async def test_the_same_key_with_another_request_is_409(intake: Intake, what: str) -> None:
    body, _ = REQUESTS[what]
    accepted, other = await intake.submitted(), await intake.submitted()
    key = intake.key()
    assert (await intake.counter.post(path(accepted, what), json=body, headers=key)).status_code == 202
    before = await intake.stored()
    changed = {**body, "note" if what == "supplement" else "reason": "Khác."}
    assert_problem(await intake.counter.post(path(accepted, what), json=changed, headers=key), 409)
    assert_problem(await intake.counter.post(path(other, what), json=body, headers=key), 409)
    assert await intake.stored() == before


@pytest.mark.parametrize("what", REQUESTS)
async def test_who_may_not_is_refused_and_a_wrong_secret_looks_like_no_dossier(intake: Intake, what: str) -> None:
    body, _ = REQUESTS[what]
    accepted, other = await intake.submitted(), await intake.submitted()
    before = await intake.stored()
    key = intake.key()
    for given in (key, {}):
        assert_problem(await intake.nobody.post(path(accepted, what), json=body, headers=given), 401)
        async with intake.client("specialist") as client:
            assert_problem(await client.post(path(accepted, what), json=body, headers=given), 403)
    wrong = {"secret": other["tracking_secret"]}
    refused = await intake.nobody.post(path(accepted, what), params=wrong, json=body, headers=key)
    unknown = await intake.counter.post(path({"dossier_id": new_id()}, what), json=body, headers=key)
    assert assert_problem(refused, 404, "unknown-dossier") == assert_problem(unknown, 404, "unknown-dossier")
    for secret, status in (("", 404), ("ế" * 26, 404), ("\x00", 400), (accepted["tracking_secret"].upper(), 404)):
        params = {"secret": secret}
        assert_problem(await intake.nobody.post(path(accepted, what), params=params, json=body, headers=key), status)
    assert await intake.stored() == before


WRONG: list[tuple[str, Any, int]] = [
    ("supplement", {}, 422),
    ("supplement", {"components": []}, 422),
    ("supplement", {"components": [part("passport_of_the_cat")]}, 422),
    ("supplement", {"components": [part(), part()]}, 422),
    ("supplement", {"components": [part(sha256="x")]}, 422),
    ("supplement", {"components": [part()], "note": 5}, 422),
    ("supplement", {"components": [part()], "note": "x" * 2001}, 422),
    ("supplement", [], 400),
    ("withdrawal", {}, 422),
    ("withdrawal", {"reason": ""}, 422),
    ("withdrawal", {"reason": "\u202e"}, 422),
    ("withdrawal", {"reason": "x", "more": 1}, 422),
]


@pytest.mark.parametrize(("what", "body", "status"), WRONG)
async def test_a_wrong_request_is_refused_and_leaves_nothing(intake: Intake, what: str, body: Any, status: int) -> None:
    accepted = await intake.submitted()
    before = await intake.stored()
    assert_problem(await intake.counter.post(path(accepted, what), json=body, headers=intake.key()), status)
    assert_problem(await intake.counter.post(path(accepted, what), json=REQUESTS[what][0]), 400)
    assert await intake.stored() == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-SHA256": SHA},
        {"Content-SHA256": SHA.upper()},
        {"Content-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(SHA)).decode()}:"},
    ],
)
async def test_a_content_is_stored_whole_and_published_once(intake: Intake, headers: dict[str, str]) -> None:
    accepted = await intake.submitted()
    for _ in range(2):
        answer = await intake.counter.put(content_path(accepted), content=FILE, headers={**PDF, **headers})
        assert answer.status_code == 201, answer.text
        assert (answer.json()["sha256"], answer.json()["size"]) == (SHA, len(FILE))
    stored = await intake.pool.fetchval(
        "select string_agg(p.piece, ''::bytea order by p.number) from contents c join content_pieces p"
        " using (upload_id) where c.dossier_id = $1::uuid",
        accepted["dossier_id"],
    )
    assert stored == FILE
    assert await types_of(intake, accepted) == [(1, "DossierSubmitted"), (2, "ComponentStored")]


async def test_another_content_takes_the_place_of_the_first(intake: Intake) -> None:
    accepted = await intake.submitted()
    secret = {"secret": accepted["tracking_secret"]}
    before = await intake.stored()
    for content in (FILE, b"%PDF a better scan"):
        assert (await intake.nobody.put(content_path(accepted), params=secret, content=content, headers=PDF)).is_success
    after = await intake.stored()
    assert (after["contents"] - before["contents"], after["content_pieces"] - before["content_pieces"]) == (1, 1)
    assert len(await types_of(intake, accepted)) == 3


async def test_a_content_must_match_the_hash_it_was_announced_with(intake: Intake) -> None:
    body = example()
    body["components"][0].update(code="birth_declaration", sha256=SHA)
    accepted = await intake.submitted(body)
    before = await intake.stored()
    answer = await intake.counter.put(content_path(accepted), content=FILE + b"!", headers=PDF)
    assert_problem(answer, 422, "hash-differs")
    assert await intake.stored() == before
    assert (await intake.counter.put(content_path(accepted), content=FILE, headers=PDF)).status_code == 201


async def test_a_supplements_component_can_have_a_content(intake: Intake) -> None:
    accepted = await intake.submitted()
    code = "parents_marriage"
    assert_problem(await intake.counter.put(content_path(accepted, code), content=FILE, headers=PDF), 404)
    body = {"components": [part(code, sha256=SHA)]}
    assert (await intake.counter.post(path(accepted, "supplement"), json=body, headers=intake.key())).status_code == 202
    assert_problem(await intake.counter.put(content_path(accepted, code), content=b"other", headers=PDF), 422)
    assert (await intake.counter.put(content_path(accepted, code), content=FILE, headers=PDF)).status_code == 201


async def test_a_wrong_content_leaves_no_piece(intake: Intake) -> None:
    accepted = await intake.submitted()
    before = await intake.stored()
    put = intake.counter.put
    wrong = {"Content-SHA256": "0" * 64}
    cases = [
        (put(content_path(accepted), content=FILE, headers={**PDF, **wrong}), 422, "hash-differs"),
        (put(content_path(accepted), content=b"", headers=PDF), 422, "empty-content"),
        (put(content_path(accepted), content=FILE, headers={**PDF, "Content-SHA256": "zz"}), 400, "malformed-hash"),
        (put(content_path(accepted), content=FILE, headers={"Content-Type": "text/html"}), 415, "wrong-content-type"),
        (put(content_path(accepted, "no_such"), content=FILE, headers=PDF), 404, "unknown-component"),
        (put(content_path(accepted, "a%00b"), content=FILE, headers=PDF), 400, "nul"),
        (put(content_path({"dossier_id": new_id()}), content=FILE, headers=PDF), 404, "unknown-dossier"),
        (intake.nobody.put(content_path(accepted), content=FILE, headers=PDF), 401, "unauthorized"),
    ]
    for request, status, code in cases:
        assert_problem(await request, status, code)
    assert await intake.stored() == before


async def test_a_content_that_is_too_large_leaves_no_piece(intake: Intake) -> None:
    accepted = await intake.submitted()
    before = await intake.stored()

    async def too_much() -> AsyncIterator[bytes]:
        block = bytes(1024 * 1024)
        for _ in range(LIMIT // len(block) + 1):
            yield block

    answer = await intake.counter.put(content_path(accepted), content=too_much(), headers=PDF)
    assert_problem(answer, 413, "too-large")
    assert await intake.stored() == before


async def test_an_interrupted_upload_leaves_no_piece(intake: Intake) -> None:
    accepted = await intake.submitted()
    before = await intake.stored()
    arrived = asyncio.Event()

    async def breaks_off() -> AsyncIterator[bytes]:
        yield FILE
        await arrived.wait()
        raise ConnectionAbortedError

    upload = asyncio.create_task(intake.counter.put(content_path(accepted), content=breaks_off(), headers=PDF))

    async def pieces() -> int:
        return (await intake.stored())["content_pieces"] - before["content_pieces"]

    async def none_left() -> bool:
        return await pieces() == 0

    await wait_until(pieces, 10, what="the first pieces are stored while the rest is on its way")
    arrived.set()
    with pytest.raises((ConnectionAbortedError, httpx2.HTTPError)):
        await upload
    await wait_until(none_left, 10)
    assert await intake.stored() == before
    assert "Traceback" not in intake.service.log.read_text("utf-8")
