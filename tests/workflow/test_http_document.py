"""docs/api/workflow.json is true: what workflow answers is declared there, and what is declared can be answered."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

import httpx2
import pytest_asyncio

from services.workflow import commands, models
from services.workflow.stages import models as stage_models
from shared.clock import VIETNAM
from shared.http import openapi
from shared.http.openapi import Problems
from shared.privacy.tracking import tracking_secret
from tests.fixtures.openapi import check_answer, declared_codes, document, raised_codes, template_of
from tests.fixtures.services import TOKENS
from tests.workflow.conftest import Desk, problem
from tests.workflow.lifecycle_scenes import BIRTH, COPIES, LAND
from tests.workflow.refusals import refusals_of

NOT_ANSWERED = {"machine-task"}
"""Rules raise it; over HTTP a task that awaits a machine is 404 `unknown-task`."""
COMMON: list[Problems] = [
    problems for name, problems in vars(openapi).items() if name == "ANY" or name.startswith("WITH_")
]
"""What follows from a route's form: its caller, its parameters, its body."""
RESULT = {"number": "12/2025", "signed_by": "Nguyễn Văn A", "signed_as": "KT.", "signature": "wet"}
SAMPLES = {"code": COPIES, "id": "7", "reference": "H44.XXX-250827-0001"}
"""Values of the path's parameters; every other one is an id."""
QUERIES = {"/v1/due": f"procedure={COPIES}&received=2026-01-08T10:00:00%2B07:00"}
"""The parameters that an operation requires."""


class Operation(NamedTuple):
    method: str
    template: str
    described: dict[str, Any]

    @property
    def address(self) -> str:
        """With a sample for every parameter that is required."""
        path = re.sub(r"\{(\w+)\}", lambda found: SAMPLES.get(found[1], str(uuid4())), self.template)
        return f"{path}?{QUERIES.get(self.template, '')}"

    @property
    def roles(self) -> list[str]:
        roles: list[str] = self.described.get("x-roles", [])
        return roles

    @property
    def takes_json(self) -> bool:
        return "requestBody" in self.described

    @property
    def parameters(self) -> set[str]:
        return {parameter["name"] for parameter in self.described.get("parameters", ())}


def operations() -> Iterator[Operation]:
    for template, item in document("workflow")["paths"].items():
        for method, described in item.items():
            yield Operation(method.upper(), template, described)


async def check(answer: httpx2.Response) -> None:
    """A hook of the client: every answer is as the document declares it."""
    await answer.aread()
    method = answer.request.method
    template = template_of("workflow", method, answer.request.url.path)
    if template is None:
        return
    if template == "/v1/events" and answer.status_code == 200:
        # CloudEvents' `time` is the same as on Kafka, in UTC; every other time has the offset of Vietnam.
        events = answer.json()
        for event in events:
            event["time"] = datetime.fromisoformat(event["time"]).astimezone(VIETNAM).isoformat()
        answer = httpx2.Response(200, headers=answer.headers, json=events)
    check_answer("workflow", method, template, answer)


@pytest_asyncio.fixture
async def checked(desk: Desk) -> AsyncIterator[Desk]:
    """Workflow, with every answer checked."""
    desk.http.event_hooks = {"response": [check]}
    yield desk


def test_every_problem_code_is_declared_and_every_declared_one_is_raised() -> None:
    declared = declared_codes("workflow")
    assert raised_codes("services/workflow") - declared == NOT_ANSWERED
    common = {code for problems in COMMON for codes in problems.values() for code in codes}
    assert declared - common == raised_codes("services/workflow", "shared/inbox/parked.py") - common - NOT_ANSWERED


def test_the_problems_of_each_command_are_those_of_its_rule() -> None:
    own = {(404, "unknown-task"), (409, "task-already-completed")}
    assert flat(commands.START_PROBLEMS) == own | refused_by("start")
    assert flat(commands.COMPLETE_PROBLEMS) == own | refused_by("complete")
    assert flat(commands.RESULT_PROBLEMS) == {(404, "unknown-dossier")} | refused_by("set_result")


def flat(problems: Problems) -> set[tuple[int, str]]:
    return {(status, code) for status, codes in problems.items() for code in codes}


def refused_by(command: str) -> set[tuple[int, str]]:
    return {
        (409 if refusal.conflict else 422, refusal.code)
        for refusal in refusals_of(command)
        if refusal.code not in NOT_ANSWERED
    }


async def test_the_answers_of_a_day_are_as_declared(checked: Desk) -> None:
    desk = checked
    await desk.put_blanks("land_certificate", 1, 9)
    birth, copies, recorded = await desk.submit(BIRTH), await desk.submit(COPIES), await desk.submit(LAND)
    await desk.submit(COPIES)
    task = await desk.task_of(birth, "appraisal")
    await desk.call("POST", f"/v1/tasks/{task['task_id']}/start", "specialist", {"version": 1})
    await desk.call("PUT", f"/v1/dossiers/{birth}/result", "specialist", {**RESULT, "book": "01/KS"})
    await desk.forward(birth, "appraisal", "approval", "issuing")
    await desk.forward(copies, "return")
    items = [{"task_id": str(uuid4()), "outcome": "agree", "version": 1}]
    answer = await desk.call("POST", "/v1/tasks/complete", "counter", {"items": items})
    assert answer.json()["items"][0]["code"] == "unknown-task"
    for dossier_id in (birth, copies, recorded):
        shown = await desk.get(f"/v1/dossiers/{dossier_id}")
        secret = tracking_secret(desk.app.secret_key, dossier_id)
        for reference in {str(dossier_id), shown["dossier_code"] or str(dossier_id)}:
            tracked = await desk.http.get(f"/v1/track/{reference}?secret={secret}")
            assert tracked.status_code == 200
    for operation in operations():
        if operation.method == "GET":
            await desk.call("GET", operation.address, next(iter(operation.roles), "ops"))
    await desk.get("/v1/stages?agency=H44.XXX")
    desk.set_clock("2025-09-10T09:00:00+07:00")
    assert (await desk.get("/v1/stages"))["bottleneck"]["since"].endswith("+07:00")
    for path in ("/v1/calendar", f"/v1/procedures/{COPIES}"):
        assert (await desk.call("PUT", path, "ops", await desk.get(path))).status_code == 200
    problem(await desk.put_blanks("land_certificate", 5, 12), 409, "blanks-overlap")


async def test_whoever_may_not_call_an_operation_is_told_so_as_declared(checked: Desk) -> None:
    for operation in operations():
        if not operation.roles:
            continue
        problem(await checked.http.request(operation.method, operation.address), 401, "unauthorized")
        for role in TOKENS.keys() - set(operation.roles):
            problem(await checked.call(operation.method, operation.address, role), 403, "wrong-role")


DEEP = b'{"a":' * 101 + b"1" + b"}" * 101
BODIES: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"{", {}, 400, "not-json"),
    (b"\xff", {}, 400, "not-json"),
    (b"[]", {}, 400, "not-an-object"),
    (b'{"a": 1, "a": 2}', {}, 400, "doubled-key"),
    (b'{"a": "\\u0000"}', {}, 400, "nul"),
    (DEEP, {}, 400, "too-deep"),
    (b" " * 262_145, {}, 413, "too-large"),
    (b"{}", {"Content-Type": "text/plain"}, 415, "wrong-content-type"),
    (b"{}", {"Content-Encoding": "gzip"}, 415, "wrong-content-encoding"),
    (b'{"no_such_field": 1}', {}, 422, "invalid"),
]


async def test_a_body_that_cannot_be_read_is_refused_as_declared(checked: Desk) -> None:
    for operation in operations():
        if not operation.takes_json:
            continue
        for body, headers, status, code in BODIES:
            sent = {
                "Authorization": f"Bearer {TOKENS[operation.roles[0]]}",
                "Content-Type": "application/json",
                **headers,
            }
            answer = await checked.http.request(operation.method, operation.address, headers=sent, content=body)
            problem(answer, status, code)


async def test_a_bad_address_is_refused_as_declared(checked: Desk) -> None:
    for operation in operations():
        role, address = next(iter(operation.roles), "ops"), operation.address
        if operation.parameters:
            problem(await checked.call(operation.method, f"{address}&x=%00", role), 400, "nul")
        if "after" in operation.parameters:
            problem(await checked.call("GET", f"{address}&after=junk", role), 400, "bad-cursor")
        if "limit" in operation.parameters:
            problem(await checked.call("GET", f"{address}&limit=0", role), 422, "invalid")
        problem(await checked.call(operation.method, operation.address.replace("?", "/?"), role), 404, "not-found")


async def test_what_is_not_there_is_not_found_as_declared(checked: Desk) -> None:
    version = {"version": 1}
    for method, address, role, body, code in (
        ("POST", f"/v1/tasks/{uuid4()}/start", "counter", version, "unknown-task"),
        ("POST", f"/v1/tasks/{uuid4()}/complete", "counter", {"outcome": "agree", **version}, "unknown-task"),
        ("GET", f"/v1/dossiers/{uuid4()}", "counter", None, "not-yet-known"),
        ("PUT", f"/v1/dossiers/{uuid4()}/result", "counter", RESULT, "unknown-dossier"),
        ("GET", "/v1/track/H44.XXX-250827-0001?secret=x", "counter", None, "unknown-dossier"),
        ("GET", "/v1/procedures/9.999999", "counter", None, "unknown-procedure"),
        ("GET", "/v1/due?procedure=9.999999&received=2026-01-08T10:00:00Z", "counter", None, "unknown-procedure"),
    ):
        problem(await checked.call(method, address, role, body), 404, code)


async def test_without_its_database_every_operation_is_unavailable_as_declared(checked: Desk, monkeypatch: Any) -> None:
    monkeypatch.setattr(checked.service, "_pool", None)
    for operation in operations():
        if not operation.takes_json and operation.template not in ("/livez", "/metrics", "/readyz"):
            role = next(iter(operation.roles), "ops")
            answer = await checked.call(operation.method, operation.address, role)
            problem(answer, 503, "unavailable")
            assert int(answer.headers["retry-after"]) > 0


async def test_head_of_health_is_answered_like_get_without_a_body(checked: Desk) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        got, head = await checked.http.get(path), await checked.http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-type"] == got.headers["content-type"]


PLAIN_NAMES = frozenset(
    {"stage", "stages", "trend", "items", "kind", "serial_from", "serial_to", "task_id", "dossier_id", "procedure_code",
     "procedure_group", "date", "days", "why", "why_en", "vi", "en", "since", "started_at", "due_at", "received_at",
     "national_status", "status", "result", "label", "outcomes", "timeline", "recorded_only", "number", "book",
     "signed_by", "signed_as", "signature", "sha256"}
)  # fmt: skip
"""Fields whose name, with the sentence of their object, says what they are."""


def test_every_other_field_of_an_answer_has_a_description() -> None:
    own = {
        name
        for module in (models, stage_models)
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
    }
    schemas = document("workflow")["components"]["schemas"]
    undescribed = {
        field
        for name in own & schemas.keys()
        for field, schema in schemas[name]["properties"].items()
        if "description" not in schema
    }
    assert undescribed == PLAIN_NAMES


async def test_the_feed_refuses_the_filters_that_it_does_not_have(checked: Desk) -> None:
    for query in ("types=DossierReceived", "agency=H44.XXX", "agency=", "types=x&limit=0"):
        answer = await checked.call("GET", f"/v1/events?{query}", "system")
        code = "invalid" if "limit" in query else "unknown-parameter"
        problem(answer, 422 if code == "invalid" else 400, code)
