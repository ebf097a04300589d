"""Real answers of the API against `docs/api/notify.json`: every status, media type, field and problem code."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from services.notify.api import create_app
from services.notify.rules import SendResult
from shared.contract.envelope import new_id
from tests.fixtures.databases import MakePool
from tests.fixtures.in_process import client_of
from tests.fixtures.openapi import check_answer, declared_codes, document, raised_codes
from tests.notify.ledger import WITH_NOTHING, WITH_PHONE, Notify, Scripted, notice_id_of, record_of, wanted

NOTICES = "/v1/notices"
CALLS = "/v1/call-list"
DONE = "/v1/call-list/{notice_id}/done"
PATHS = {NOTICES: "ops", CALLS: "counter"}
"""Path of a list -> a role that may read it."""


def check(response: httpx2.Response, path: str, status: int, code: str | None = None) -> Any:
    """The body of a JSON answer that has this status and code, and is declared."""
    assert response.status_code == status, response.text
    check_answer("notify", response.request.method, path, response)
    body = response.json()
    assert body.get("code") == code
    return body


def unconnected() -> FastAPI:
    """The application before PostgreSQL has answered."""
    return create_app(Notify(None, {}).app)  # type: ignore[arg-type]


def test_every_problem_code_in_the_source_is_declared() -> None:
    assert raised_codes("services/notify") <= declared_codes("notify")


def test_every_field_and_parameter_that_is_not_obvious_is_described() -> None:
    obvious = {"notice_id", "dossier_id", "items", "channel"}
    for name in ("NoticeRow", "NoticePage", "Call", "CallPage", "CallDone"):
        schema = document("notify")["components"]["schemas"][name]
        assert schema["description"]
        undescribed = {field for field, value in schema["properties"].items() if not value.get("description")}
        assert undescribed <= obvious, name
    for path in PATHS:
        assert all(parameter["description"] for parameter in document("notify")["paths"][path]["get"]["parameters"])


async def test_the_answers_to_good_requests_are_those_of_the_document(make_pool: MakePool) -> None:
    pool = await make_pool("shared", "services.notify")
    notify = Notify(pool, {"sms": Scripted(lambda _: SendResult("sent"))})
    records = []
    for contact in (WITH_PHONE, WITH_NOTHING, WITH_NOTHING):
        dossier_id = new_id()
        records.append(record_of(wanted(dossier_id, contact), dossier_id, 1))
    await notify.consumer.apply(records)
    call, dossier_of_call = notice_id_of(records[1]), str(records[1].key, "ascii")  # type: ignore[arg-type]
    app = create_app(notify.app)
    async with client_of(app, "ops") as ops:
        page = check(await ops.get(NOTICES, params={"limit": 2}), NOTICES, 200)
        rest = check(await ops.get(NOTICES, params={"limit": 2, "after": page["next"]}), NOTICES, 200)
        assert sorted(row["state"] for row in page["items"] + rest["items"]) == ["due", "listed", "listed"]
    async with client_of(app, "counter") as counter:
        assert len(check(await counter.get(CALLS), CALLS, 200)["items"]) == 2
        for form, media_type in (("text", "text/plain"), ("html", "text/html")):
            printed = await counter.get(CALLS, params={"format": form})
            check_answer("notify", "get", CALLS, printed)
            assert printed.headers["content-type"].startswith(media_type)
            assert printed.headers["cache-control"] == "no-store"
        done = check(await counter.post(DONE.format(notice_id=call)), DONE, 200)
        assert check(await counter.post(DONE.format(notice_id=call)), DONE, 200) == done
        check(await counter.post(DONE.format(notice_id=notice_id_of(records[0]))), DONE, 404, "unknown-call")
        check(await counter.post(DONE.format(notice_id=new_id())), DONE, 404, "unknown-call")
    async with client_of(app, "ops") as ops:
        listed = check(await ops.get(NOTICES, params={"dossier_id": dossier_of_call}), NOTICES, 200)
        assert listed["items"][0]["done_at"] == done["done_at"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("limit=0", 422, "invalid"),
        ("limit=1001", 422, "invalid"),
        ("limit=x", 422, "invalid"),
        (f"after={'x' * 201}", 422, "invalid"),
        ("after=x", 400, "bad-cursor"),
        ("after=%00", 400, "nul"),
    ],
)
async def test_a_list_with_a_bad_parameter_is_refused_as_declared(
    path: str, query: str, status: int, code: str
) -> None:
    async with client_of(unconnected(), PATHS[path]) as client:
        check(await client.get(f"{path}?{query}"), path, status, code)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (NOTICES, "state=x"),
        (NOTICES, "dossier_id=x"),
        (CALLS, "format=pdf"),
        (CALLS, f"agency={'x' * 61}"),
    ],
)
async def test_a_filter_without_meaning_is_refused_as_declared(path: str, query: str) -> None:
    async with client_of(unconnected(), PATHS[path]) as client:
        check(await client.get(f"{path}?{query}"), path, 422, "invalid")


async def test_a_call_that_cannot_be_named_is_refused_as_declared() -> None:
    async with client_of(unconnected(), "counter") as counter:
        check(await counter.post(DONE.format(notice_id="x")), DONE, 422, "invalid")
        check(await counter.post(DONE.format(notice_id=f"{new_id()}%00")), DONE, 400, "nul")


async def test_a_caller_without_a_token_or_with_the_wrong_role_is_refused_as_declared() -> None:
    app = unconnected()
    for role, status, code in ((None, 401, "unauthorized"), ("system", 403, "wrong-role")):
        async with client_of(app, role) as client:
            for path in PATHS:
                check(await client.get(path), path, status, code)
            check(await client.post(DONE.format(notice_id=new_id())), DONE, status, code)


async def test_without_a_database_and_after_an_unexpected_error_the_answer_is_declared() -> None:
    notify = Notify(None, {})  # type: ignore[arg-type]
    notify.app.service.use(object())  # type: ignore[arg-type] # every use of it is an unexpected error
    for app, status, code in ((unconnected(), 503, "unavailable"), (create_app(notify.app), 500, "internal-error")):
        for path, role in PATHS.items():
            async with client_of(app, role) as client:
                check(await client.get(path), path, status, code)
        async with client_of(app, "counter") as counter:
            check(await counter.post(DONE.format(notice_id=new_id())), DONE, status, code)


async def test_health_answers_head_and_a_slash_at_the_end_is_another_address() -> None:
    async with client_of(unconnected(), "ops") as ops:
        check_answer("notify", "get", "/livez", await ops.get("/livez"))
        check_answer("notify", "get", "/readyz", await ops.get("/readyz"))
        for path, status in (("/livez", 200), ("/readyz", 503), ("/metrics", 200)):
            response = await ops.head(path)
            assert (response.status_code, response.content) == (status, b""), path
        for path in (f"{NOTICES}/", f"{CALLS}/", "/livez/"):
            assert (await ops.get(path)).status_code == 404, path
