"""idlookup's application object: what its routes, handlers and tasks share, built once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from services.idlookup.circuit_breaker import CircuitBreaker
from services.idlookup.metrics import RegistryMetrics
from services.idlookup.registry import Registry
from services.idlookup.settings import IdlookupSettings
from services.idlookup.window import Window
from services.idlookup.worker import ASKS, SENDS, RegistryWorker
from services.idlookup.writer import Writer
from shared.delivery import Delivery
from shared.privacy.sealed import Sealer
from shared.service import Service

MIN_UNANSWERED = {"issue": 32, "verify": 8}
"""Requests that may always be without an answer at the registry, by kind: more births than a commune has at once."""
FINISH_S = 3.0
"""How long answers are still stored after the workers have stopped, in wall seconds."""


@dataclass(repr=False)  # it holds keys, which no message may show
class IdlookupApp:
    """`workers` by kind (`issue`, `verify`); empty unless `call_registry` runs."""

    settings: IdlookupSettings
    service: Service = field(init=False)
    delivery: Delivery = field(init=False)
    sealer: Sealer = field(init=False)
    metrics: RegistryMetrics = field(init=False)
    workers: dict[str, RegistryWorker] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.service = Service(self.settings)
        self.delivery = Delivery(self.service, self.settings)
        self.sealer = Sealer(self.settings.seal_keys.get_secret_value())
        self.metrics = RegistryMetrics(self.service.metrics_registry, self.delivery.stages)

    def wake(self, kinds: Iterable[str]) -> None:
        """Tell the workers that requests of these kinds may be due. A call too early only costs a query."""
        for kind in kinds:
            if kind in self.workers:
                self.workers[kind].wake()

    async def call_registry(self) -> None:
        """Run the workers of both kinds until cancelled; then store the answers that came, within `FINISH_S`."""
        settings = self.settings
        writer = Writer(
            outbox=self.delivery.outbox,
            sealer=self.sealer,
            office=self.service.office,
            metrics=self.metrics,
            settings=settings,
        )
        # Each kind has its sends, its asks, a probe and the watcher.
        connections = 2 * (SENDS + ASKS + 2)
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        async with httpx2.AsyncClient(
            base_url=settings.registry_url, timeout=None, limits=limits, trust_env=False
        ) as client:
            max_unanswered = {"issue": settings.issue_limit, "verify": settings.verify_limit}
            self.workers |= {
                kind: RegistryWorker(
                    registry=Registry(client, kind, CircuitBreaker(), deadline_s=settings.call_deadline_s),
                    window=Window(MIN_UNANSWERED[kind], max_unanswered[kind]),
                    pool=self.service.pool,
                    sealer=self.sealer,
                    on_answer=writer.put,
                )
                for kind in MIN_UNANSWERED
            }
            writing = asyncio.create_task(writer.run())
            calling = [asyncio.create_task(worker.run()) for worker in self.workers.values()]
            reporting = asyncio.create_task(writer.report_late())
            try:
                await _until_one_ends([writing, reporting, *calling])
            finally:
                for task in (reporting, *calling):
                    task.cancel()
                await asyncio.gather(reporting, *calling, return_exceptions=True)
                with contextlib.suppress(TimeoutError):
                    await writer.finish(FINISH_S)
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    async def refresh_gauges(self) -> None:
        """Set the gauges of both kinds."""
        for kind, worker in self.workers.items():
            self.metrics.report(kind, worker.window, worker.breaker)


async def _until_one_ends(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Raises what the task raised that ended first."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()
