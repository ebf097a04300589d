"""Compares the successful answers given during the campaign with the databases after it: each effect must be there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import asyncpg

ANSWERED_S = 60.0
"""A healthy registry answers every request within this time."""


class LaterRequest(NamedTuple):
    """A request for a dossier after its submission. `kind`: withdrawal or supplement."""

    dossier_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class Answers:
    """The successful answers that the load generator has received."""

    accepted: Mapping[str, str] = field(default_factory=dict)
    """Idempotency-Key -> dossier id of a submission (201)."""
    completed: Mapping[str, str] = field(default_factory=dict)
    """Task id -> the outcome it was completed with (200)."""
    requested: Mapping[str, LaterRequest] = field(default_factory=dict)
    """Idempotency-Key -> the later request (202)."""


@dataclass(slots=True)
class BrokenAnswers:
    """Answers without their effect: ids or keys of each kind. `pending`: requests that the registry left pending."""

    submissions: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    pending: int = 0

    @property
    def forgotten(self) -> int:
        return len(self.submissions) + len(self.tasks) + len(self.requests)

    def as_json(self, limit: int = 20) -> dict[str, Any]:
        return {name: value[:limit] if isinstance(value, list) else value for name, value in asdict(self).items()}


async def find_broken(dsns: Mapping[str, str], given: Answers, *, within_s: float = ANSWERED_S) -> BrokenAnswers:
    """Look up each answer in intake, workflow and idlookup. Registry requests may stay pending for `within_s` more."""
    stored = {str(row[0]) for row in await _fetch(dsns["intake"], "select dossier_id from proof.submissions")}
    tasks = {
        str(task): outcome
        for task, outcome in await _fetch(dsns["workflow"], "select task_id, outcome from tasks where state = 'closed'")
    }
    requests = {
        key: LaterRequest(str(dossier), kind)
        for key, dossier, kind in await _fetch(dsns["intake"], "select idempotency_key, dossier_id, kind from requests")
    }
    return BrokenAnswers(
        submissions=[dossier for dossier in given.accepted.values() if dossier not in stored],
        tasks=[task for task, outcome in given.completed.items() if tasks.get(task) != outcome],
        requests=[key for key, request in given.requested.items() if requests.get(key) != request],
        pending=await _count_pending(dsns["idlookup"], within_s),
    )


async def _count_pending(dsn: str, within_s: float) -> int:
    deadline = time.monotonic() + within_s
    while True:
        ((pending,),) = await _fetch(dsn, "select count(*) from proof.id_requests where state = 'pending'")
        if not pending or time.monotonic() > deadline:
            return int(pending)
        await asyncio.sleep(0.2)


async def _fetch(dsn: str, query: str) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()
