"""The callers: take due requests, oldest first, ask the registry, write down what came of it. No transaction waits."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any

import httpx2
import structlog

from shared.database import is_passing
from shared.faults import fault_point
from shared.office import wall_now
from shared.outbox import stage
from shared.sealed import Tampered
from shared.service import Service

from . import numbers, store
from .registry import Registry, RegistryMetrics
from .rules import Answer, Next, Request, after, call_body, still_pending
from .settings import IdlookupSettings

log = structlog.get_logger(__name__)

BATCH = 50
IDLE_S = 0.1


async def call_for_ever(service: Service) -> None:
    """Both kinds side by side, each with its own limit and breaker, until cancelled."""
    said = service.settings
    assert isinstance(said, IdlookupSettings)
    metrics: RegistryMetrics = service.extras["registry_metrics"]
    calls = {"issue": said.issue_calls, "verify": said.verify_calls}
    async with httpx2.AsyncClient(
        base_url=said.registry_url,
        timeout=said.call_deadline_s,
        limits=httpx2.Limits(max_connections=sum(calls.values()) + 2, max_keepalive_connections=sum(calls.values())),
    ) as client:
        pools = {kind: Registry(client, kind, most_calls=most, metrics=metrics) for kind, most in calls.items()}
        service.extras["registries"] = pools
        async with asyncio.TaskGroup() as group:
            for registry in pools.values():
                group.create_task(_serve(service, registry, said))


async def _serve(service: Service, registry: Registry, said: IdlookupSettings) -> None:
    """Take up what is due whenever a call may be made."""
    under_way: set[asyncio.Task[None]] = set()
    try:
        while True:
            if (rest := registry.breaker.rest_s()) > 0:
                await asyncio.sleep(min(rest, 1.0))
                continue
            async with registry.limit:
                pass
            if not registry.breaker.allow():
                await asyncio.sleep(IDLE_S)
                continue
            rows = await _take(service, registry, said)
            if not rows:
                registry.breaker.released()
                await _idle(service, registry.kind)
                continue
            task = asyncio.create_task(_work(service, registry, said, rows))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(0)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _take(service: Service, registry: Registry, said: IdlookupSettings) -> list[Request]:
    try:
        return await store.take_due(service.pool(), registry.kind, BATCH, said.call_deadline_s * 3)
    except Exception as error:
        if not is_passing(error):
            raise
        await asyncio.sleep(1.0)
        return []


async def _idle(service: Service, kind: str) -> None:
    """Until something new came, or the next request is due; never for long."""
    due_in = await store.next_due_in(service.pool(), kind)
    came: asyncio.Event = service.extras["came"]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(came.wait(), min(max(due_in, 0.005), IDLE_S))
        await asyncio.sleep(0.005)
        came.clear()


async def _work(service: Service, registry: Registry, said: IdlookupSettings, rows: Sequence[Request]) -> None:
    """One lot: ask after those that were asked before, send the others, save all."""
    try:
        async with registry.limit:
            answers = await _answers(service, registry, rows)
        await _save(service, said, rows, answers)
    except Exception as error:
        # The lease runs out and somebody asks again by key.
        if not is_passing(error):
            log.exception("a lot of requests was not settled", kind=registry.kind)


async def _answers(service: Service, registry: Registry, rows: Sequence[Request]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    before = [str(row.request_key) for row in rows if row.asked]
    if before:
        fault_point("idlookup-before-call")
        answers |= await registry.ask(before)
        fault_point("idlookup-after-answer")
    new: list[dict[str, Any]] = []
    for row in rows:
        key = str(row.request_key)
        known = answers.get(key)
        if known is not None and (known.state != "unknown" or row.dropped):
            continue
        try:
            name = "subject" if row.kind == "issue" else "person"
            new.append(call_body(row, service.sealer.open(row.dossier_id, name, row.sealed)))
        except Tampered:
            answers[key] = Answer("rejected", reason="tampered")
    if new:
        fault_point("idlookup-before-call")
        answers |= await registry.send(new)
        fault_point("idlookup-after-answer")
    return answers


async def _save(service: Service, said: IdlookupSettings, rows: Sequence[Request], answers: dict[str, Answer]) -> None:
    now, chance = wall_now(), random.Random()
    settled = []
    for row in rows:
        made = after(row, answers[str(row.request_key)], now, chance)
        late = still_pending(row, made, now, said.pending_after_s / service.office.speed)
        settled.append(_settled(service, row, made, late))
    async with service.pool().acquire() as tx, tx.transaction():
        told = await store.save_settled(tx, settled)
        fault_point("idlookup-before-commit")
        lanes = await stage(tx, told)
    service.wake(lanes)


def _settled(service: Service, row: Request, made: Next, late: Any) -> store.Settled:
    sealed, odd = None, ()
    if made.number is not None:
        sealed = service.sealer.seal(row.dossier_id, "number", made.number)
        subject = service.sealer.open(row.dossier_id, "subject", row.sealed)
        odd = numbers.warnings(made.number, subject.get("child") or subject)
    facts = [] if late is None else [late]
    if made.tells is not None:
        facts.append(made.tells(sealed, odd))
    return store.Settled(row, made, sealed, late is not None, tuple(facts))


async def show(service: Service) -> None:
    """Refresh the gauges."""
    for registry in service.extras.get("registries", {}).values():
        registry.show()
