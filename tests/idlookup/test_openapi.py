"""Real answers of the API against `docs/api/idlookup.json`: every status, media type, field and problem code."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI

from services.idlookup.api import create_app
from shared.contract.envelope import new_id
from tests.fixtures.databases import MakePool
from tests.fixtures.in_process import BAD_BODIES, BadBody, client_of
from tests.fixtures.openapi import check_answer, declared_codes, document, raised_codes
from tests.idlookup.lookup import PACKAGES, Lookup, births, dossier_of, key_of, sealer

LIST = "/v1/requests"
RESOLVE = "/v1/requests/{request_key}/resolve"
NEW_PERSON = {"decision": "new_person", "note": "Đã đối chiếu sổ hộ tịch"}
SAME_PERSON = {"decision": "same_person", "number": "025126000123", "note": "Đã đối chiếu sổ hộ tịch"}


def check(response: httpx2.Response, path: str, status: int, code: str | None = None) -> Any:
    """The body of an answer that has this status and code, and is declared."""
    assert response.status_code == status, response.text
    check_answer("idlookup", response.request.method, path, response)
    body = response.json()
    assert body.get("code") == code
    return body


def resolve_path(request_key: UUID) -> str:
    return RESOLVE.format(request_key=request_key)


def unconnected() -> FastAPI:
    """The application before PostgreSQL has answered."""
    return create_app(Lookup(None, "http://127.0.0.1:1").app)  # type: ignore[arg-type]


def test_every_problem_code_in_the_source_is_declared() -> None:
    assert raised_codes("services/idlookup") <= declared_codes("idlookup")


def test_every_field_and_parameter_that_is_not_obvious_is_described() -> None:
    obvious = {"request_key", "dossier_id", "decision", "items"}
    for name in ("RequestRow", "RequestPage", "Resolved"):
        schema = document("idlookup")["components"]["schemas"][name]
        assert schema["description"]
        undescribed = {field for field, value in schema["properties"].items() if not value.get("description")}
        assert undescribed <= obvious, name
    operation = document("idlookup")["paths"][LIST]["get"]
    assert all(parameter["description"] for parameter in operation["parameters"])


async def test_the_answers_to_good_requests_are_those_of_the_document(make_pool: MakePool) -> None:
    pool = await make_pool(*PACKAGES)
    lookup = Lookup(pool, "http://127.0.0.1:1")
    waiting, found, same, new = births(4)
    await lookup.consume([waiting, found, same, new])
    await pool.execute(
        "update requests set state = 'duplicate', asked_at = now(), settled_at = now() where request_key <> $1",
        key_of(waiting),
    )
    await pool.execute(
        "update requests set state = 'found', sealed_number = $2 where request_key = $1",
        key_of(found),
        sealer.seal(dossier_of(found), "number", "025326000123"),
    )
    async with client_of(create_app(lookup.app), "specialist") as officer:
        page = check(await officer.get(LIST, params={"limit": 3}), LIST, 200)
        rest = check(await officer.get(LIST, params={"limit": 3, "after": page["next"]}), LIST, 200)
        rows = {row["request_key"]: row for row in page["items"] + rest["items"]}
        assert rows[str(key_of(found))]["number"] == "*********123"
        assert rows[str(key_of(waiting))]["asked_at"] is None
        check(await officer.post(resolve_path(key_of(same)), json=SAME_PERSON), RESOLVE, 200)
        check(await officer.post(resolve_path(key_of(new)), json=NEW_PERSON), RESOLVE, 200)
        check(await officer.post(resolve_path(key_of(same)), json=SAME_PERSON), RESOLVE, 409, "not-a-duplicate")
        check(await officer.post(resolve_path(new_id()), json=NEW_PERSON), RESOLVE, 404, "unknown-request")


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("limit=0", 422, "invalid"),
        ("limit=x", 422, "invalid"),
        ("limit=1001", 422, "invalid"),
        ("state=x", 422, "invalid"),
        (f"after={'x' * 201}", 422, "invalid"),
        ("after=x", 400, "bad-cursor"),
        ("after=%00", 400, "nul"),
    ],
)
async def test_a_list_with_a_bad_parameter_is_refused_as_declared(query: str, status: int, code: str) -> None:
    async with client_of(unconnected(), "ops") as ops:
        check(await ops.get(f"{LIST}?{query}"), LIST, status, code)


@pytest.mark.parametrize("bad", BAD_BODIES, ids=lambda bad: bad.code)
async def test_a_bad_body_is_refused_as_declared(bad: BadBody) -> None:
    async with client_of(unconnected(), "specialist") as officer:
        response = await officer.post(resolve_path(new_id()), content=bad.content, headers=bad.headers)
        check(response, RESOLVE, bad.status, bad.code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({**SAME_PERSON, "number": "02512600012x"}, "invalid"),
        ({**SAME_PERSON, "number": 25126000123}, "invalid"),
        ({**NEW_PERSON, "note": "?"}, "invalid"),
        ({**NEW_PERSON, "decision": "nobody"}, "invalid"),
        ({"note": NEW_PERSON["note"]}, "invalid"),
        ({**SAME_PERSON, "number": None}, "number-needed"),
    ],
)
async def test_a_decision_that_does_not_fit_is_refused_as_declared(body: dict[str, Any], code: str) -> None:
    async with client_of(unconnected(), "specialist") as officer:
        check(await officer.post(resolve_path(new_id()), json=body), RESOLVE, 422, code)
        check(await officer.post(RESOLVE.format(request_key="x"), json=body), RESOLVE, 422, "invalid")


async def test_a_caller_without_a_token_or_with_the_wrong_role_is_refused_as_declared() -> None:
    app = unconnected()
    for role, status, code in ((None, 401, "unauthorized"), ("system", 403, "wrong-role")):
        async with client_of(app, role) as client:
            check(await client.get(LIST), LIST, status, code)
            check(await client.post(resolve_path(new_id()), json=NEW_PERSON), RESOLVE, status, code)


async def test_without_a_database_and_after_an_unexpected_error_the_answer_is_declared() -> None:
    lookup = Lookup(None, "http://127.0.0.1:1")  # type: ignore[arg-type]
    lookup.app.service.use(object())  # type: ignore[arg-type] # every use of it is an unexpected error
    for app, status, code in ((unconnected(), 503, "unavailable"), (create_app(lookup.app), 500, "internal-error")):
        async with client_of(app, "specialist") as officer:
            check(await officer.get(LIST), LIST, status, code)
            check(await officer.post(resolve_path(new_id()), json=NEW_PERSON), RESOLVE, status, code)


async def test_health_answers_head_and_a_slash_at_the_end_is_another_address() -> None:
    async with client_of(unconnected(), "ops") as ops:
        check_answer("idlookup", "get", "/livez", await ops.get("/livez"))
        check_answer("idlookup", "get", "/readyz", await ops.get("/readyz"))
        for path, status in (("/livez", 200), ("/readyz", 503), ("/metrics", 200)):
            response = await ops.head(path)
            assert (response.status_code, response.content) == (status, b""), path
        for path in (f"{LIST}/", f"{resolve_path(new_id())}/", "/livez/"):
            assert (await ops.get(path)).status_code == 404, path
