"""A town: citizens submit dossiers and officers complete tasks, over HTTP, on a running stack."""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2

from deploy.local.stack import Stack
from deploy.verify import Report, run
from tests.fixtures.openapi import check_answer, template_of
from tests.fixtures.waiting import wait_until

BIRTH, COPY, EXTRACT, ALLOWANCE, BUSINESS = "1.001193", "2.000908", "2.000635", "1.001776", "1.001612"
"""A birth; a certified copy in one visit; a register extract; a social allowance; a business, recorded only."""
HEALTHY = {
    "latency_p50_s": 0.02,
    "latency_p95_s": 0.06,
    "capacity_per_s": 200.0,
    "error_rate": 0.0,
    "lost_answer_rate": 0.0,
    "duplicate_rate": 0.0,
    "hang": False,
    "down": False,
}
SERVICES = ("intake", "workflow", "idlookup", "notify")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Filed:
    """An accepted submission."""

    dossier_id: str
    secret: str
    agency: str


class Town:
    """A client of all services. Each test uses its own receiving agency, so that it sees only its own tasks."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.endpoints = stack.endpoints
        self.http = httpx2.AsyncClient(timeout=20, trust_env=False)
        self.examples: dict[str, dict[str, Any]] = {}
        self.answers_checked: Counter[tuple[str, str, str]] = Counter()
        """(service, method, path) -> how many real answers fitted the OpenAPI document."""
        self.numbers: set[str] = set()
        """Every 12-digit number in a submission."""

    async def call(
        self, service: str, method: str, path: str, role: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        """Send a request, again while the service is away, for at most a minute. Returns (status, JSON)."""
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = await self.once(service, method, path, role, body, **headers)
                if answer.status_code != 503:
                    return answer.status_code, answer.json()
            except httpx2.HTTPError:
                pass
            assert time.monotonic() < deadline, f"{service} did not answer {method} {path}"
            await asyncio.sleep(0.05)

    async def once(
        self, service: str, method: str, path: str, role: str, body: Any = None, **headers: str
    ) -> httpx2.Response:
        """Send a request once. What a service answers is compared with its OpenAPI document."""
        token = {"Authorization": f"Bearer {self.endpoints['tokens'][role]}"} if role else {}
        content = {} if body is None else {"json": body}
        answer = await self.http.request(
            method, self.endpoints[service] + path, headers={**token, **headers}, **content
        )
        if service in SERVICES and (template := template_of(service, method, path.partition("?")[0])) is not None:
            check_answer(service, method, template, answer)
            self.answers_checked[service, method, template] += 1
        return answer

    async def learn(self) -> None:
        """Fetch the procedures' examples."""
        _, page = await self.call("workflow", "GET", "/v1/procedures?limit=1000", "ops")
        self.examples = {procedure["code"]: procedure["example"] for procedure in page["items"]}

    def submission(self, code: str, agency: str, *, online: bool = False) -> dict[str, Any]:
        """Return the procedure's example for a new synthetic person, submitted by an officer or online."""
        body, number = copy.deepcopy(self.examples[code]), next(_numbers)
        body["receiving_agency"], body["channel"] = agency, "online" if online else "direct"
        body.pop("assisted_by", None)
        person = body["applicant"]
        person["personal_id"], person["phone"] = f"00019{number * 7 + 1:07d}", f"09{number:08d}"
        if child := body["subject"].get("child"):
            child["full_name"] += " " + f"{number}".translate(str.maketrans("0123456789", "abcdeghikl"))
        self.numbers |= set(re.findall(r"(?<!\d)\d{12}(?!\d)", str(body)))
        return body

    async def file(self, code: str, agency: str, *, online: bool = False) -> Filed:
        """Submit, again with the same key until there is an answer."""
        body = self.submission(code, agency, online=online)
        status, answer = await self.call(
            "intake",
            "POST",
            "/v1/dossiers",
            "system" if online else "counter",
            body,
            **{"Idempotency-Key": f"{uuid4()}"},
        )
        assert status in (200, 201), answer
        return Filed(answer["dossier_id"], answer["tracking_secret"], agency)

    async def dossier(self, filed: Filed) -> dict[str, Any]:
        status, answer = await self.call("workflow", "GET", f"/v1/dossiers/{filed.dossier_id}", "ops")
        assert status in (200, 404), answer
        return dict(answer) if status == 200 else {"state": "not-yet-known", "timeline": [], "national_status": 0}

    async def types(self, filed: Filed) -> list[str]:
        """Return the types of the dossier's lifecycle events, in order."""
        return [entry["type"] for entry in (await self.dossier(filed))["timeline"]]

    async def until_event(self, filed: Filed, type: str, bound_s: float = 40) -> None:
        """Wait for a lifecycle event of this type."""

        async def is_published() -> bool:
            return type in await self.types(filed)

        await wait_until(is_published, bound_s, what=f"{type} of {filed.dossier_id}", every_s=0.05)

    async def tasks(self, agency: str) -> list[dict[str, Any]]:
        status, answer = await self.call("workflow", "GET", f"/v1/tasks?agency={agency}&limit=1000", "ops")
        assert status == 200, answer
        return list(answer["items"])

    async def task(self, filed: Filed, stage: str, bound_s: float = 40) -> dict[str, Any]:
        """Wait for the dossier's open task in a stage and return it."""

        async def found() -> dict[str, Any] | None:
            for task in await self.tasks(filed.agency):
                if task["dossier_id"] == filed.dossier_id and task["stage"] == stage:
                    return task
            return None

        task: dict[str, Any] | None = await wait_until(
            found, bound_s, what=f"a task in {stage} for {filed.dossier_id}", every_s=0.05
        )
        assert task is not None
        return task

    async def complete(self, task: dict[str, Any], outcome: str = "", **content: Any) -> tuple[int, Any]:
        """Complete a task with `outcome` (default: the forward one). Returns (status, answer)."""
        forward = next(each["code"] for each in task["outcomes"] if each["forward"])
        body = {"outcome": outcome or forward, "version": task["version"], **content}
        officer = {"X-Officer": f"{task['role']}-1"}
        return await self.call(
            "workflow", "POST", f"/v1/tasks/{task['task_id']}/complete", task["role"], body, **officer
        )

    async def work(self, filed: Filed, *stages: str) -> None:
        """Complete the dossier's tasks in these stages with the forward outcome, one after the other."""
        for stage in stages:
            status, answer = await self.complete(await self.task(filed, stage))
            assert status == 200, answer

    async def work_all(self, filed: list[Filed], bound_s: float = 60) -> None:
        """Complete all open tasks with the forward outcome until every dossier is returned."""

        async def all_returned() -> bool:
            for agency in {each.agency for each in filed}:
                for task in await self.tasks(agency):
                    if task["outcomes"] and not task["waiting_for"]:
                        # 409 and 404: an earlier try succeeded, but its answer was lost with the process.
                        status, answer = await self.complete(task)
                        assert status in (200, 404, 409), answer
            states = [(await self.dossier(each))["national_status"] for each in filed]
            return all(status == 10 for status in states)

        await wait_until(all_returned, bound_s, what="every dossier is returned", every_s=0.1)

    async def registry(self, **settings: Any) -> None:
        """Change the registry simulator's settings; the others are healthy."""
        answer = await self.http.put(self.endpoints["registry"] + "/control", json={**HEALTHY, **settings})
        answer.raise_for_status()

    async def stats(self, outside: str) -> dict[str, int]:
        return dict((await self.http.get(self.stack.endpoints[outside] + "/control/stats")).json())

    async def prove(self) -> Report:
        """Wait until quiet, then check the four zeros and that the gateway sent one message per reference."""
        report = await run(self.stack.endpoints, settle_seconds=60)
        content = report.as_json()
        assert report.complete, content["troubles"]
        assert set(report.figures().values()) == {0}, content["details"]
        assert report.quiet, content["waiting"]
        assert not content["set_aside"]["parked"], content["details"]["parked"]
        sent = await self.stats("sms")
        assert sent["sent_twice"] == 0
        assert sent["messages"] == sent["references"] > 0
        return report
