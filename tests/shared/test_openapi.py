"""The OpenAPI document: which problems follow from a route, and the checker that compares answers with a document."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from prometheus_client import CollectorRegistry
from pydantic import Field

from shared.http import health, openapi
from shared.http.access import ROLES, allow
from shared.http.health import ReadinessReport
from shared.http.models import HttpModel
from shared.http.openapi import describe
from tests.fixtures import openapi as checker
from tests.fixtures.openapi import check_answer

ANY = {(400, "nul"), (500, "internal-error"), (503, "unavailable")}
CALLER = {(401, "unauthorized"), (403, "wrong-role")}
JSON = {
    *((400, code) for code in ("not-json", "not-an-object", "doubled-key", "too-deep", "interrupted")),
    (413, "too-large"),
    (415, "wrong-content-type"),
    (415, "wrong-content-encoding"),
}


class Part(HttpModel):
    name: str
    """The part's name."""


class Thing(HttpModel):
    """A thing."""

    parts: list[Part]
    at: str = Field(description="When.")


def described(routes: APIRouter) -> dict[str, Any]:
    app = FastAPI()
    app.include_router(routes)
    openapi.complete(app)
    return app.openapi()


def problems_of(document: dict[str, Any], method: str = "get", path: str = "/x") -> set[tuple[int, str]]:
    return {
        (int(status), code)
        for status, answer in document["paths"][path][method]["responses"].items()
        for content in answer.get("content", {}).values()
        for code in content["schema"].get("properties", {}).get("code", {}).get("enum", ())
    }


def route(*roles: str, path: str = "/x", **more: Any) -> APIRouter:
    routes = APIRouter(dependencies=[Depends(allow(*roles))])

    async def endpoint() -> None: ...

    routes.add_api_route(path, more.pop("endpoint", endpoint), methods=[more.pop("method", "GET")], **more)
    return routes


def test_a_route_for_some_roles_can_answer_401_and_403() -> None:
    document = described(route("ops"))
    assert problems_of(document) == ANY | CALLER
    assert document["paths"]["/x"]["get"]["x-roles"] == ["ops"]


def test_a_route_for_all_roles_never_answers_403() -> None:
    assert problems_of(described(route(*ROLES))) == ANY | {(401, "unauthorized")}


def test_a_route_without_roles_needs_no_token_and_one_that_declares_nothing_is_an_error() -> None:
    routes = APIRouter()

    @routes.get("/x", openapi_extra=describe(roles=[]))
    async def open_to_all() -> None: ...

    assert problems_of(described(routes)) == ANY

    @routes.get("/y")
    async def forgotten() -> None: ...

    with pytest.raises(LookupError, match="/y"):
        described(routes)


def test_parameters_add_what_a_wrong_value_is_answered() -> None:
    async def optional_text(secret: str | None = None) -> None: ...
    async def bounded(limit: Annotated[int, Query(ge=1)] = 1) -> None: ...
    async def required(agency: str) -> None: ...
    async def listed(after: str | None = None) -> None: ...
    async def keyed(key: Annotated[str, Header(alias="Idempotency-Key")]) -> None: ...
    async def by_id(id: UUID) -> None: ...
    async def by_name(name: str) -> None: ...

    expected = {
        optional_text: ("/x", set()),
        bounded: ("/x", {(422, "invalid")}),
        required: ("/x", {(422, "invalid")}),
        listed: ("/x", {(400, "bad-cursor")}),
        keyed: ("/x", {(400, "malformed")}),
        by_id: ("/x/{id}", {(422, "invalid")}),
        by_name: ("/x/{name}", set()),
    }
    for endpoint, (path, more) in expected.items():
        document = described(route("ops", path=path, endpoint=endpoint))
        assert problems_of(document, path=path) == ANY | CALLER | more, endpoint.__name__


def test_a_json_body_adds_what_a_wrong_body_is_answered() -> None:
    async def post(request: Request) -> None: ...

    def document(**more: Any) -> dict[str, Any]:
        return described(route("ops", method="POST", endpoint=post, openapi_extra=describe(**more)))

    known = document(body=Thing)
    assert problems_of(known, "post") == ANY | CALLER | JSON | {(422, "invalid")}
    assert known["components"]["schemas"]["Part"]["properties"]["name"]["description"] == "The part's name."
    own = document(body=Thing, invalid="invalid-thing", problems={422: ["no-such-part"], 404: ["unknown-thing"]})
    assert problems_of(own, "post") == ANY | CALLER | JSON | {
        (422, "invalid-thing"),
        (422, "no-such-part"),
        (404, "unknown-thing"),
    }
    file = document(body={"type": "string", "format": "binary"}, media=["image/png"])
    assert problems_of(file, "post") == ANY | CALLER
    assert list(file["paths"]["/x"]["post"]["requestBody"]["content"]) == ["image/png"]


def test_the_finished_document_has_nothing_of_its_making_and_says_when_to_come_again() -> None:
    document = described(route("ops", response_model=Thing, endpoint=_thing, openapi_extra=describe(problems={})))
    assert "ValidationError" not in str(document)
    assert openapi.PROBLEMS not in str(document)
    operation = document["paths"]["/x"]["get"]
    assert "Retry-After" in operation["responses"]["503"]["headers"]
    assert "headers" not in operation["responses"]["500"]
    assert list(operation["responses"]["500"]["content"]) == ["application/problem+json"]


async def _thing() -> Any: ...


def test_health_needs_no_role_and_its_metrics_are_text() -> None:
    async def readiness() -> ReadinessReport:
        return ReadinessReport(True, {})

    document = described(health.router(CollectorRegistry(), readiness))
    for path in ("/livez", "/readyz", "/metrics"):
        assert problems_of(document, path=path) == {(400, "nul")}
        assert "x-roles" not in document["paths"][path]["get"]
    formats = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert set(formats) == {"text/plain", "application/openmetrics-text"}


# ---- the checker -----------------------------------------------------------------------------------------------------

GOOD = {"parts": [{"name": "a"}], "at": "2025-08-25T09:00:00+07:00"}
PROBLEM = {
    "type": "urn:hoso:problem:nul",
    "title": "Bad Request",
    "status": 400,
    "detail": "Sai.",
    "detail_en": "Wrong.",
}


@pytest.fixture
def of_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    document = described(route("ops", response_model=Thing, endpoint=_thing))
    monkeypatch.setattr(checker, "document", lambda _: document)
    checker._closed_components.cache_clear()


def answer(status: int, body: Any, media_type: str = "application/json") -> httpx2.Response:
    return httpx2.Response(status, json=body, headers={"content-type": media_type})


@pytest.mark.usefixtures("of_thing")
def test_the_checker_accepts_what_is_declared() -> None:
    check_answer("any", "GET", "/x", answer(200, GOOD))
    check_answer("any", "GET", "/x", answer(400, {**PROBLEM, "code": "nul"}, "application/problem+json"))


@pytest.mark.usefixtures("of_thing")
@pytest.mark.parametrize(
    "wrong",
    [
        answer(201, GOOD),
        answer(200, GOOD, "text/plain"),
        answer(200, {**GOOD, "more": 1}),
        answer(200, {**GOOD, "parts": [{"name": "a", "more": 1}]}),
        answer(200, {"parts": []}),
        answer(200, {**GOOD, "at": "2025-08-25T02:00:00Z"}),
        answer(200, {**GOOD, "at": "2025-08-25T02:00:00+00:00"}),
        answer(200, {**GOOD, "at": "2025-08-25T09:00:00"}),
        answer(400, {**PROBLEM, "code": "another"}, "application/problem+json"),
        answer(400, {**PROBLEM, "code": "nul"}),
        answer(404, {**PROBLEM, "code": "nul"}, "application/problem+json"),
    ],
)
def test_the_checker_refuses_everything_else(wrong: httpx2.Response) -> None:
    with pytest.raises(AssertionError, match="/x"):
        check_answer("any", "GET", "/x", wrong)
