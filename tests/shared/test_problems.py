"""Every error is a problem+json with a code, in Vietnamese and English, and shows no value and no trace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI, Header, Query

from shared.http import problems
from shared.http.problems import Problem, not_found
from shared.postgres.transient import NotReady
from shared.refusals import Complaint, Complaints, Refused

SECRET = "079123456789"
RAISED: dict[str, Exception] = {
    "problem": Problem(409, "stale-version", vi="Đã có người làm trước.", en="Somebody was faster.", version=4),
    "missing": not_found(),
    "down": ConnectionRefusedError(SECRET),
    "notready": NotReady("intake"),
    "deadlock": asyncpg.DeadlockDetectedError(SECRET),
    "timeout": TimeoutError(SECRET),
    "disk": asyncpg.DiskFullError(SECRET),
    "conflict": asyncpg.UniqueViolationError(SECRET),
    "bug": KeyError(SECRET),
    "refused": Refused("bad-field", "Sai trường.", "A field is wrong."),
    "refused-now": Refused("four-eyes", "Không được ký.", "May not sign.", conflict=True),
    "complaints": Complaints("invalid-submission", "Sai.", "Wrong.", [Complaint("a/b", "missing", "còn thiếu", "no")]),
}


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    problems.install(app)

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        raise RAISED[name]

    @app.get("/typed")
    async def typed(count: Annotated[int, Query(ge=1)], idempotency_key: Annotated[str, Header()]) -> None: ...

    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://service") as made:
        yield made


@pytest.mark.parametrize("name", RAISED)
async def test_an_error_never_shows_what_it_was_about(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.get(f"/raise/{name}")
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text


async def test_a_problem_says_code_and_sentence_in_both_languages(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/raise/problem")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:hoso:problem:stale-version",
        "title": "Conflict",
        "status": 409,
        "code": "stale-version",
        "detail": "Đã có người làm trước.",
        "detail_en": "Somebody was faster.",
        "version": 4,
    }


@pytest.mark.parametrize(("name", "status"), [("refused", 422), ("refused-now", 409)])
async def test_a_rules_refusal_is_422_and_409_where_the_present_state_forbids_it(
    client: httpx2.AsyncClient, name: str, status: int
) -> None:
    answer, refused = await client.get(f"/raise/{name}"), RAISED[name]
    assert isinstance(refused, Refused)
    said = answer.json()
    assert (answer.status_code, said["code"], said["detail"], said["detail_en"]) == (
        status,
        refused.code,
        refused.vi,
        refused.en,
    )


async def test_a_rules_complaints_are_422_with_a_row_each(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/raise/complaints")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-submission")
    assert answer.json()["errors"] == [{"field": "a/b", "code": "missing", "vi": "còn thiếu", "en": "no"}]


@pytest.mark.parametrize("name", ["down", "notready", "deadlock", "timeout", "disk"])
async def test_a_transient_error_is_503_with_retry_after(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.get(f"/raise/{name}")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0


async def test_an_error_that_is_not_transient_is_500(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/raise/conflict")).status_code == 500
    assert (await client.get("/raise/bug")).status_code == 500


async def test_a_wrong_value_is_422_and_a_missing_key_400(client: httpx2.AsyncClient) -> None:
    wrong = await client.get("/typed?count=0", headers={"idempotency-key": "x"})
    assert (wrong.status_code, wrong.json()["code"], wrong.json()["errors"][0]["field"]) == (
        422,
        "invalid",
        "query/count",
    )
    missing = await client.get("/typed?count=1")
    assert (missing.status_code, missing.json()["code"]) == (400, "malformed")


async def test_an_unexpected_error_is_a_problem_too(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/raise/bug")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], bool(answer.json()["detail"])) == ("internal-error", True)


async def test_a_parameters_complaint_is_in_both_languages_and_does_not_repeat_it(client: httpx2.AsyncClient) -> None:
    answer = await client.get(f"/typed?count={SECRET}x", headers={"idempotency-key": "x"})
    row = answer.json()["errors"][0]
    assert (row["field"], row["code"], bool(row["vi"]), bool(row["en"])) == ("query/count", "int-parsing", True, True)
    assert SECRET not in answer.text


async def test_no_such_address_and_no_such_method_are_problems_too(client: httpx2.AsyncClient) -> None:
    nowhere, wrong = await client.get("/nowhere"), await client.post("/typed")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not-found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method-not-allowed")
    assert wrong.headers["allow"] == "GET"
