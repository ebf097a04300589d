"""What the crowd was answered, held against what the databases say once all is quiet: an answer given must stand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import asyncpg

ANSWERED_S = 60.0
"""A registry in good weather has answered everything by then."""


@dataclass(frozen=True, slots=True)
class Given:
    """What was answered with a success."""

    accepted: Mapping[str, str] = field(default_factory=dict)
    """Idempotency-Key -> dossier of a submission (201)."""
    completed: Mapping[str, str] = field(default_factory=dict)
    """Task -> the outcome it was completed with (200)."""
    asked: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Idempotency-Key -> (dossier, `withdrawal` or `supplement`) of a later request (202)."""


@dataclass(slots=True)
class Broken:
    """Answers that do not stand: ids or keys of each kind, and how many requests the registry has left pending."""

    submissions: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    pending: int = 0

    @property
    def forgotten(self) -> int:
        return len(self.submissions) + len(self.tasks) + len(self.requests)

    def as_json(self, limit: int = 20) -> dict[str, Any]:
        return {name: found[:limit] if isinstance(found, list) else found for name, found in asdict(self).items()}


async def find_broken(dsns: Mapping[str, str], given: Given, *, within_s: float = ANSWERED_S) -> Broken:
    """Ask intake, workflow and idlookup what became of it; requests may be pending for `within_s` more."""
    stored = {str(row[0]) for row in await _fetch(dsns["intake"], "select dossier_id from proof.submissions")}
    tasks = {
        str(task): outcome
        for task, outcome in await _fetch(dsns["workflow"], "select task_id, outcome from tasks where state = 'closed'")
    }
    requests = {
        key: (str(dossier), kind)
        for key, dossier, kind in await _fetch(dsns["intake"], "select idempotency_key, dossier_id, kind from requests")
    }
    return Broken(
        submissions=[dossier for dossier in given.accepted.values() if dossier not in stored],
        tasks=[task for task, outcome in given.completed.items() if tasks.get(task) != outcome],
        requests=[key for key, what in given.asked.items() if requests.get(key) != what],
        pending=await _count_pending(dsns["idlookup"], within_s),
    )


async def _count_pending(dsn: str, within_s: float) -> int:
    give_up = time.monotonic() + within_s
    while True:
        ((pending,),) = await _fetch(dsn, "select count(*) from proof.id_requests where state = 'pending'")
        if not pending or time.monotonic() > give_up:
            return int(pending)
        await asyncio.sleep(0.2)


async def _fetch(dsn: str, query: str) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()
