"""Puts idlookup's parts together: two callers, one writer, what they hear and what they show."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx2
from fastapi import APIRouter

from services.idlookup import api, handlers
from services.idlookup.circuit_breaker import CircuitBreaker
from services.idlookup.metrics import RegistryMetrics
from services.idlookup.registry import Registry
from services.idlookup.settings import IdlookupSettings
from services.idlookup.store import RequestWork
from services.idlookup.window import Window
from services.idlookup.worker import ASKS, SENDS, RegistryWorker
from services.idlookup.writer import Writer
from shared.contract.envelope import Received
from shared.service import Background, Listening, Service

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

LEAST = {"issue": 32, "verify": 8}
"""Requests that may always stand at the registry: so many births a commune never has at once."""
FINISH_S = 3.0


def routers(service: Service) -> list[APIRouter]:
    callers: dict[str, RegistryWorker] = {}
    service.extras.update(callers=callers, meter=RegistryMetrics(service.registry, service.stages))

    def knock(kinds: set[str]) -> None:
        for kind in kinds & callers.keys():
            callers[kind].knock()

    service.extras["knock"] = knock
    return [api.router(service)]


def listening(service: Service) -> Listening:
    def seen(sent_at: datetime) -> None:
        service.delivery.beat("id_number", sent_at)

    async def open_work(_: Tx, __: Sequence[Received]) -> RequestWork:
        return RequestWork(open_sealed=service.sealer.open, knock=service.extras["knock"], seen=seen)

    return Listening(handlers.TOPICS, open_work, handlers.HANDLERS)


async def call_for_ever(service: Service) -> None:
    """Both kinds side by side, until cancelled; then what was heard is written down first, within a bound."""
    said, speed = service.settings, service.office.speed
    assert isinstance(said, IdlookupSettings)
    writer = Writer(
        pool=service.pool,
        sealer=service.sealer,
        office=service.office,
        wake=service.wake,
        meter=service.extras["meter"],
        pending_after_s=said.pending_after_s / speed,
        forget_after_s=said.forget_after_s / speed,
    )
    most = {"issue": said.issue_limit, "verify": said.verify_limit}
    # A probe, the watcher, and all calls of both kinds.
    lines = httpx2.Limits(max_connections=2 * (SENDS + ASKS + 2), max_keepalive_connections=2 * (SENDS + ASKS + 2))
    async with httpx2.AsyncClient(base_url=said.registry_url, timeout=None, limits=lines, trust_env=False) as client:
        callers = {
            kind: RegistryWorker(
                registry=Registry(client, kind, CircuitBreaker(), deadline_s=said.call_deadline_s),
                window=Window(LEAST[kind], most[kind]),
                pool=service.pool,
                sealer=service.sealer,
                hand_on=writer.put,
                deadline_s=said.call_deadline_s,
            )
            for kind in most
        }
        service.extras["callers"].update(callers)
        writing = asyncio.create_task(writer.run())
        calling = [asyncio.create_task(caller.run()) for caller in callers.values()]
        late = asyncio.create_task(writer.tell_late())
        try:
            await _until_one_ends([writing, late, *calling])
        finally:
            for task in (late, *calling):
                task.cancel()
            await asyncio.gather(late, *calling, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                await writer.finish(FINISH_S)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


async def _until_one_ends(tasks: Sequence[asyncio.Task[Any]]) -> None:
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()


async def show(service: Service) -> None:
    """Refresh the gauges."""
    meter: RegistryMetrics = service.extras["meter"]
    for kind, caller in service.extras["callers"].items():
        meter.show(kind, caller.window, caller.breaker)


BACKGROUND: tuple[Background, ...] = (call_for_ever,)
REFRESHERS: tuple[Background, ...] = (show,)
