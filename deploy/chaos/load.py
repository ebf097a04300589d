"""The load of a campaign: submissions, completed tasks, supplements and withdrawals. Records every answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx2

from deploy.chaos.answers import Answers, LaterRequest
from deploy.demo.people import body
from deploy.demo.week import Arrival
from shared.clock import VIETNAM

MIX = ("1.001193", "2.000908", "2.000815", "2.000635", "1.000656", "1.001776", "1.001193")
"""Procedures of the submissions. Births come twice: they pass through every service."""
OFFICERS = ("counter", "specialist", "signatory", "records_clerk")
AGENCY = "H44.XXX"
WITHDRAWAL_SHARE = SUPPLEMENT_SHARE = 0.05


class LoadGenerator:
    """Submits `rate` dossiers per second. `torn`: keys answered with two dossier ids; `refused`: unexpected answers."""

    def __init__(self, endpoints: Mapping[str, Any], seed: int, rate: float, mix: Sequence[str] = MIX) -> None:
        self._endpoints, self._seed, self._rate, self._mix = endpoints, seed, rate, mix
        self._chance = random.Random(f"crowd {seed}")
        self._http = httpx2.AsyncClient(timeout=10, trust_env=False, limits=httpx2.Limits(max_connections=100))
        self._examples: dict[str, dict[str, Any]] = {}
        self._filing: set[asyncio.Task[None]] = set()
        self.accepted: dict[str, str] = {}
        self.torn: list[str] = []
        self.refused: list[str] = []
        self.completed: dict[str, str] = {}
        self.requested: dict[str, LaterRequest] = {}

    @property
    def answers(self) -> Answers:
        """All successful answers."""
        return Answers(self.accepted, self.completed, self.requested)

    async def learn(self) -> None:
        """Fetch each procedure's example, which the submissions are made from."""
        _, page = await self._call("workflow", "GET", "/v1/procedures?limit=1000", "ops")
        self._examples = {procedure["code"]: procedure["example"] for procedure in page["items"]}

    async def file_until(self, over: asyncio.Event) -> None:
        """Submit until `over` is set. Returns when every submission has an answer."""
        number = 0
        started = time.monotonic()
        while not over.is_set():
            number += 1
            task = asyncio.create_task(self._file(number))
            self._filing.add(task)
            task.add_done_callback(self._filing.discard)
            await asyncio.sleep(max(started + number / self._rate - time.monotonic(), 0.0))
        await asyncio.gather(*self._filing)

    async def work(self, role: str) -> None:
        """Complete the open tasks of `role`, soonest due first, forever."""
        while True:
            _, page = await self._call("workflow", "GET", f"/v1/tasks?role={role}&limit=40", role)
            tasks = [task for task in page.get("items", []) if task["outcomes"] and not task["waiting_for"]]
            items = [
                {"task_id": task["task_id"], "outcome": _forward(task), "version": task["version"]} for task in tasks
            ]
            if items:
                _, answer = await self._call("workflow", "POST", "/v1/tasks/complete", role, {"items": items})
                outcomes = {item["task_id"]: item["outcome"] for item in items}
                done = [item["task_id"] for item in answer.get("items", []) if item["status"] == 200]
                self.completed |= {task: outcomes[task] for task in done}
            await asyncio.sleep(0.2)

    async def close(self) -> None:
        await self._http.aclose()

    async def _file(self, number: int) -> None:
        code = self._mix[number % len(self._mix)]
        channel = "online" if number % 10 == 0 else "assisted"
        arrival = Arrival(datetime.now(VIETNAM), code, channel, 0, self._seed * 1_000_003 + number)
        submission, key = body(self._examples[code], arrival, AGENCY), f"chaos-{self._seed}-{number}"
        role = "system" if channel == "online" else "counter"
        dossier_id = await self._submit(key, role, submission)
        if dossier_id and number % 7 == 0 and await self._submit(key, role, submission) not in (dossier_id, ""):
            self.torn.append(key)
        if dossier_id and self._chance.random() < SUPPLEMENT_SHARE:
            component = {"code": submission["components"][0]["code"], "kind": "copy"}
            await self._request(f"{key}-s", dossier_id, "supplement", {"components": [component]})
        if dossier_id and self._chance.random() < WITHDRAWAL_SHARE:
            await self._request(f"{key}-w", dossier_id, "withdrawal", {"reason": "Không cần nữa"})

    async def _request(self, key: str, dossier_id: str, kind: str, request: dict[str, Any]) -> None:
        path = f"/v1/dossiers/{dossier_id}/{kind}"
        status, answer = await self._call("intake", "POST", path, "counter", request, **{"Idempotency-Key": key})
        if status == 202:
            self.requested[key] = LaterRequest(dossier_id, kind)
        else:
            self.refused.append(f"{status} {answer.get('code')} {kind}")

    async def _submit(self, key: str, role: str, submission: dict[str, Any]) -> str:
        """Return the dossier id, or "" when the submission was refused."""
        headers = {"Idempotency-Key": key}
        status, answer = await self._call("intake", "POST", "/v1/dossiers", role, submission, **headers)
        if status not in (200, 201):
            self.refused.append(f"{status} {answer.get('code')}")
            return ""
        dossier_id = str(answer["dossier_id"])
        if self.accepted.setdefault(key, dossier_id) != dossier_id:
            self.torn.append(key)
        return dossier_id

    async def _call(
        self, service: str, method: str, path: str, role: str, content: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Send the request, again with the same key while there is no answer or a 5xx. Returns (status, body)."""
        token = {"Authorization": f"Bearer {self._endpoints['tokens'][role]}"}
        arguments = {} if content is None else {"json": content}
        while True:
            try:
                answer = await self._http.request(
                    method, self._endpoints[service] + path, headers={**token, **headers}, **arguments
                )
                if answer.status_code < 500:
                    return answer.status_code, answer.json()
                if answer.status_code != 503:
                    self.refused.append(f"{answer.status_code} {method} {service}")
            except httpx2.HTTPError:
                pass
            await asyncio.sleep(0.2)


def _forward(task: dict[str, Any]) -> str:
    return str(next(outcome["code"] for outcome in task["outcomes"] if outcome["forward"]))
