"""Intake's OpenAPI document and its answers are the same, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from services.intake import contents
from services.intake.models import Accepted
from shared.contract.envelope import new_id
from shared.http import body
from tests.fixtures.openapi import DeclaredProblem, declared_codes, declared_problems, raised_codes, template_of
from tests.intake.conftest import CLOSED, NOT_YET, Intake, example

SUBMIT = "/v1/dossiers"
JSON = {"Content-Type": "application/json"}
GZIP = {"Content-Encoding": "gzip"}
OF_A_COMPLAINT = {"unknown-procedure", "procedure-not-yet-valid", "procedure-closed"}
"""Codes of a complaint about the procedure that become the code of the whole problem (`shared.submission.rules`)."""
NOT_PROVOKED = {"internal-error", "unavailable", "interrupted", "procedures-not-yet-known"}
"""Codes that need a failure around intake; test_trouble, test_transient_errors and test_later provoke them."""
WRONG_BODIES = {
    "not-json": b"{",
    "not-an-object": b"[]",
    "nul": b'{"a": "\\u0000"}',
    "doubled-key": b'{"a": 1, "a": 2}',
    "too-deep": b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
    "too-large": b" " * (body.LIMIT + 1),
    "does not fit": b"{}",
}


def test_every_problem_in_the_source_is_declared_and_no_other() -> None:
    raised = raised_codes("services/intake", "shared/http", "shared/submission", "shared/inbox/parked.py")
    assert declared_codes("intake") == raised | OF_A_COMPLAINT


@dataclass
class Call:
    """One request with something wrong in it."""

    method: str
    path: str
    caller: str = "counter"
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    json: Any = None

    async def send(self, intake: Intake) -> httpx2.Response:
        more = {"content": self.content} if self.json is None else {"json": self.json}
        async with intake.client(self.caller) as client:
            return await client.request(self.method, self.path, headers=dict(self.headers), **more)


def wrong_json(path: str, good: dict[str, Any], key: Mapping[str, str]) -> Iterator[Call]:
    """What can be wrong with any request that has a key and a JSON body."""
    for content in WRONG_BODIES.values():
        yield Call("POST", path, headers={**key, **JSON}, content=content)
    yield Call("POST", path, headers={**key, "Content-Type": "text/plain"}, content=b"{}")
    yield Call("POST", path, headers={**key, **JSON, **GZIP}, content=b"\x1f\x8b")
    yield Call("POST", path, json=good)
    yield Call("POST", f"{path}?x=%00", headers=key, json=good)
    yield Call("POST", path, "nobody", key, json=good)
    yield Call("POST", path, "records_clerk", key, json=good)


async def wrong_submissions(intake: Intake) -> AsyncIterator[Call]:
    used = intake.key()
    assert (await intake.counter.post(SUBMIT, json=example(), headers=used)).status_code == 201
    for call in wrong_json(SUBMIT, example(), intake.key()):
        yield call
    yield Call("POST", SUBMIT, headers=used, json=example(copies=7))
    for code in ("9.999999", NOT_YET, CLOSED):
        yield Call("POST", SUBMIT, headers=intake.key(), json=example(code))


async def wrong_requests(intake: Intake) -> AsyncIterator[Call]:
    component = {"code": "birth_notification", "kind": "copy"}
    for name, good in (("supplement", {"components": [component]}), ("withdrawal", {"reason": "Nộp nhầm."})):
        path = f"{SUBMIT}/{(await intake.submitted())['dossier_id']}/{name}"
        used = intake.key()
        assert (await intake.counter.post(path, json=good, headers=used)).status_code == 202
        for call in wrong_json(path, good, intake.key()):
            yield call
        other = {"components": [{**component, "kind": "original"}]} if name == "supplement" else {"reason": "Khác."}
        yield Call("POST", path, headers=used, json=other)
        yield Call("POST", f"{SUBMIT}/{new_id()}/{name}", headers=intake.key(), json=good)
        yield Call("POST", f"{SUBMIT}/x/{name}", headers=intake.key(), json=good)


async def wrong_contents(intake: Intake) -> AsyncIterator[Call]:
    dossier_id = (await intake.submitted())["dossier_id"]
    path, pdf = f"{SUBMIT}/{dossier_id}/components/birth_declaration/content", {"Content-Type": "application/pdf"}
    for headers in ({"Content-SHA256": "zz"}, {"Content-SHA256": "0" * 64}, {"Content-Type": "text/html"}, GZIP):
        yield Call("PUT", path, headers={**pdf, **headers}, content=b"%PDF")
    yield Call("PUT", path, headers=pdf, content=b"")
    yield Call("PUT", path, headers=pdf, content=bytes(contents.LIMIT + 1))
    yield Call("PUT", path, "nobody", pdf, b"%PDF")
    yield Call("PUT", path, "specialist", pdf, b"%PDF")
    for other in (
        f"{path}?secret=wrong",
        f"{path}?x=%00",
        f"{SUBMIT}/x/components/birth_declaration/content",
        f"{SUBMIT}/{new_id()}/components/birth_declaration/content",
        f"{SUBMIT}/{dossier_id}/components/no_such/content",
    ):
        yield Call("PUT", other, headers=pdf, content=b"%PDF")


async def wrong_views(intake: Intake) -> AsyncIterator[Call]:
    known = (await intake.submitted())["dossier_id"]
    yield Call("GET", f"{SUBMIT}/{known}", "nobody")
    for path in (f"{SUBMIT}/x", f"{SUBMIT}/{new_id()}", f"{SUBMIT}/{known}?secret=wrong", f"{SUBMIT}/{known}?x=%00"):
        yield Call("GET", path)
    for path in ("/livez", "/readyz", "/metrics"):
        yield Call("GET", f"{path}?x=%00")


async def test_every_declared_problem_is_the_answer_to_some_request(intake: Intake) -> None:
    """The clients check that each answer is declared; this test adds that nothing else is."""
    provoked: set[DeclaredProblem] = set()
    for calls in (wrong_submissions(intake), wrong_requests(intake), wrong_contents(intake), wrong_views(intake)):
        async for call in calls:
            answer = await call.send(intake)
            assert answer.status_code >= 400, call
            template = template_of("intake", call.method, answer.request.url.path)
            assert template is not None
            provoked.add(DeclaredProblem(call.method.lower(), template, answer.status_code, answer.json()["code"]))
    # tests/shared/test_parked.py has the routes of parked records, which every service shares.
    declared = {row for row in declared_problems("intake") if not row.path_template.startswith("/v1/parked")}
    assert provoked == {row for row in declared if row.code not in NOT_PROVOKED}


@pytest.mark.parametrize("with_traceparent", [False, True])
async def test_the_answer_built_by_hand_is_what_its_model_would_write(intake: Intake, with_traceparent: bool) -> None:
    headers = {**intake.key(), **({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"} if with_traceparent else {})}
    first, again = [await intake.counter.post(SUBMIT, json=example(), headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 200)
    for answer in (first, again):
        assert answer.json() == Accepted.model_validate_json(answer.content).model_dump(mode="json")
        assert answer.json()["submitted_at"].endswith("+07:00")


async def test_good_answers_fit_the_document_too(intake: Intake) -> None:
    """The clients check each answer against the document."""
    accepted = await intake.submitted()
    path = f"{SUBMIT}/{accepted['dossier_id']}"
    assert (await intake.nobody.get(path, params={"secret": accepted["tracking_secret"]})).status_code == 200
    content = f"{path}/components/birth_declaration/content"
    pdf = {"Content-Type": "application/pdf"}
    assert (await intake.counter.put(content, content=b"%PDF", headers=pdf)).status_code == 201
    for name, given in (
        ("supplement", {"components": [{"code": "birth_notification", "kind": "copy"}], "note": "Bổ sung."}),
        ("withdrawal", {"reason": "Nộp nhầm."}),
    ):
        assert (await intake.counter.post(f"{path}/{name}", json=given, headers=intake.key())).status_code == 202
    answers = await asyncio.gather(*(intake.nobody.get(name) for name in ("/livez", "/readyz", "/metrics")))
    assert [answer.status_code for answer in answers] == [200] * 3


@pytest.mark.parametrize("path", ["/v1/dossiers/", "/livez/", "/v1//dossiers"])
async def test_an_address_with_another_slash_is_unknown_and_not_redirected(intake: Intake, path: str) -> None:
    for method in ("GET", "POST"):
        assert (await intake.counter.request(method, path, json={}, headers=intake.key())).status_code == 404


async def test_head_on_health_is_answered_like_get_without_a_body(intake: Intake) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        answer = await intake.nobody.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].partition(";")[0] in ("application/json", "text/plain")
