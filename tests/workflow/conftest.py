"""Workflow's application on a real database, without a broker: tests hand it the events that one would bring."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx2
import pytest_asyncio

from deploy.local.ports import free_port
from services.workflow import handlers
from services.workflow.api import create_app
from services.workflow.app import WorkflowApp
from services.workflow.publishing import seed
from services.workflow.settings import WorkflowSettings
from services.workflow.stages import gauges
from shared.clock import OfficeClock
from shared.contract.envelope import Record, new_id
from shared.contract.events import Fact
from shared.inbox.consumer import Consumer
from shared.kafka.settings import KafkaSettings
from tests.fixtures.databases import MakePool
from tests.fixtures.services import TOKENS, settings_of
from tests.shared.records import record
from tests.workflow.lifecycle_scenes import AGENCY, rules, submission

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

PACKAGES = ("shared", "services.workflow")


def no_broker() -> KafkaSettings:
    """The settings of a broker that does not exist."""
    return KafkaSettings(f"127.0.0.1:{free_port()}", "tansu")


class Desk:
    """Workflow without a process: its routes, its rules and its tables. It is nine on Wednesday 27 August 2025."""

    def __init__(self, pool: Pool) -> None:
        env = settings_of("workflow", "postgresql://nowhere", no_broker(), free_port())
        settings = {name.removeprefix("HOSO_").lower(): value for name, value in env.items()}
        self.app = WorkflowApp(WorkflowSettings.model_validate(settings))
        self.service, self.pool = self.app.service, pool
        self.service.use(pool)
        self.consumer = Consumer(handlers.inbox(self.app), self.app.outbox, self.app.delivery.metrics, patience_s=20)
        app = create_app(self.app)
        self._sequences: dict[tuple[str, UUID], int] = defaultdict(int)
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://workflow")
        self.set_clock("2025-08-27T09:00:00+07:00")

    def set_clock(self, text: str) -> None:
        """Set office time. It goes on at the speed of wall time."""
        self.service.office = OfficeClock.of(datetime.fromisoformat(text), time.time(), 1.0)

    # What a broker brings.

    def submission(self, code: str, dossier_id: UUID | None = None, **changed: Any) -> tuple[UUID, Record]:
        dossier_id = dossier_id or new_id()
        procedure = rules(code)
        fact = submission(procedure, **{"office_at": self.service.office.now(), **changed})
        return dossier_id, self.record(dossier_id, fact)

    def record(self, dossier_id: UUID, fact: Fact) -> Record:
        self._sequences[fact.topic, dossier_id] += 1
        return record(dossier_id, self._sequences[fact.topic, dossier_id], fact=fact, topic=fact.topic)

    async def submit(self, code: str, **changed: Any) -> UUID:
        dossier_id, brought = self.submission(code, **changed)
        await self.consumer.apply([brought])
        return dossier_id

    async def receive(self, dossier_id: UUID, fact: Fact) -> None:
        await self.consumer.apply([self.record(dossier_id, fact)])

    # What people do.

    async def call(self, method: str, path: str, role: str = "counter", body: Any = None, **headers: str) -> Any:
        sent = {"Authorization": f"Bearer {TOKENS[role]}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        if body is None:
            return await self.http.request(method, path, headers=sent)
        return await self.http.request(method, path, headers=sent, json=body)

    async def get(self, path: str, role: str = "counter") -> Any:
        answer = await self.call("GET", path, role)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def tasks(self, query: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get(f"/v1/tasks?{query}"))["items"]
        return found

    async def task_of(self, dossier_id: UUID, stage: str) -> dict[str, Any]:
        """The officer's task of a dossier in a stage."""
        rows = [task for task in await self.tasks(f"limit=1000&stage={stage}") if task["dossier_id"] == str(dossier_id)]
        assert len(rows) == 1, f"{len(rows)} tasks in {stage}"
        return rows[0]

    async def complete(self, task: dict[str, Any], outcome: str | None = None, **more: Any) -> Any:
        """Complete a task: forward, by its own role, with its own version, unless `more` says otherwise."""
        forward = next(row["code"] for row in task["outcomes"] if row["forward"])
        role, officer = more.pop("role", task["role"]), more.pop("officer", "")
        body = {"outcome": outcome or forward, "version": task["version"], **more}
        return await self.call("POST", f"/v1/tasks/{task['task_id']}/complete", role, body, x_officer=officer)

    async def forward(self, dossier_id: UUID, *stages: str) -> None:
        for stage in stages:
            answer = await self.complete(await self.task_of(dossier_id, stage))
            assert answer.status_code == 200, answer.text

    # What is stored afterwards.

    async def event_types(self, dossier_id: UUID, topic: str = "dossier.lifecycle.v1") -> list[str]:
        """The types of the dossier's events on a topic, in order; their sequences have no gaps."""
        rows = await self.pool.fetch(
            "select type, sequence from events where dossier_id = $1 and topic = $2::text::topic order by lane, id",
            dossier_id,
            topic,
        )
        assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
        return [row["type"] for row in rows]

    async def last_event(self, dossier_id: UUID, type: str) -> dict[str, Any]:
        """The data of the dossier's last event of this type, with its `ce_id`."""
        row = await self.pool.fetchrow(
            "select ce_id, data from events where dossier_id = $1 and type = $2 order by id desc limit 1",
            dossier_id,
            type,
        )
        assert row is not None, f"{type} was not published"
        return {**json.loads(row["data"]), "ce_id": row["ce_id"]}

    async def put_blanks(self, kind: str, first: int, last: int) -> Any:
        return await self.call(
            "PUT", "/v1/blanks", "records_clerk", {"kind": kind, "serial_from": first, "serial_to": last}
        )

    async def set_mode(self, code: str, mode: str, reason: str = "hết phôi") -> None:
        document = await self.get(f"/v1/procedures/{code}")
        answer = await self.call(
            "PUT", f"/v1/procedures/{code}", "ops", {**document, "intake_mode": mode, "record_only_reason": reason}
        )
        assert answer.status_code == 200, answer.text

    async def figures(self, **query: str) -> dict[str, dict[str, Any]]:
        """`GET /v1/stages` by stage."""
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        return {row["stage"]: row for row in (await self.get(f"/v1/stages?{asked}"))["stages"]}

    async def metric(self, name: str, **labels: str) -> float | None:
        await gauges.refresh(self.app)
        return self.service.metrics_registry.get_sample_value(name, labels)


@pytest_asyncio.fixture
async def desk(make_pool: MakePool) -> AsyncIterator[Desk]:
    """Workflow with the shipped procedures, and without dossiers."""
    new = Desk(await make_pool(*PACKAGES, size=16))
    await seed(new.app)
    yield new
    await new.http.aclose()


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is this problem, in both languages. Returns its body."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    assert body["status"] == status
    assert body["detail"]
    assert body["detail_en"]
    assert body["detail"] != body["detail_en"]
    return body


__all__ = ["AGENCY", "Desk", "desk", "problem"]
