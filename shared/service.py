"""A service process: an HTTP application with its own database, background tasks, health and metrics.

HTTP is served at once. The database is connected in the background, and tried again until it answers: a service starts
while its database is down, and `/readyz` answers 503 until it is up. Publishing and consuming are attached by
`shared.delivery`; a service without Kafka leaves them out.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry, Gauge

from shared import fault_points
from shared.clock import OfficeClock
from shared.http import body, health, openapi, problems
from shared.http.access import Access
from shared.http.access_log import AccessLog
from shared.http.health import ReadinessReport
from shared.http.server import serve
from shared.postgres.migrate import migrate
from shared.postgres.pool import wait_for_pool
from shared.postgres.transient import NotReady, is_transient
from shared.settings import ServiceSettings
from shared.telemetry import gc_timer, logs

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

Task = Callable[[], Awaitable[None]]
RESTART_AFTER_S = 1.0
"""Pause before a background task is started again."""


@dataclass
class Service:
    """What every service has: settings, the office clock, tokens, metrics, and the connection pool once it is open."""

    settings: ServiceSettings
    office: OfficeClock = field(init=False)
    access: Access = field(init=False)
    metrics_registry: CollectorRegistry = field(init=False, default_factory=CollectorRegistry)
    refreshed: Gauge = field(init=False)
    """When the gauges were last refreshed."""
    prepared: bool = field(init=False, default=False)
    """The migrations and every `on_ready` are done."""
    stopping: bool = field(init=False, default=False)
    """A signal to stop has come: `/readyz` answers 503, everything else works until the socket is closed."""
    _pool: Pool | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        settings = self.settings
        self.office = OfficeClock.of(settings.office0, settings.wall0, settings.speed)
        self.access = Access(settings.tokens.get_secret_value())
        self.refreshed = Gauge(
            "dossier_metrics_refreshed_timestamp_seconds",
            "When the gauges were last refreshed",
            ["service"],
            registry=self.metrics_registry,
        ).labels(settings.service)

    @property
    def name(self) -> str:
        return self.settings.service

    def pool(self) -> Pool:
        """The connection pool. Raises NotReady (503) until PostgreSQL has answered and the migrations are done."""
        if self._pool is None:
            raise NotReady(self.name)
        return self._pool

    def use(self, pool: Pool) -> None:
        """Let `pool()` return `pool`, whose database is migrated."""
        self._pool = pool


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is attached to a service: routes, tasks, and more fields for `/readyz`.

    `on_ready` steps run once, in order, after the migrations and before any other task; a step is tried again after a
    transient error. `background` tasks run until the service stops, and are started again when they end or raise.
    `refreshers` set gauges every `refresh_s` seconds. `readiness` returns fields for `/readyz`. `migrations` are
    packages whose migrations run before the service's own.
    """

    routers: Sequence[APIRouter] = ()
    on_ready: Sequence[Task] = ()
    background: Sequence[Task] = ()
    refreshers: Sequence[Task] = ()
    readiness: Callable[[], Mapping[str, Any]] = dict
    migrations: Sequence[str] = ()


def create_app(service: Service, *parts: Part) -> FastAPI:
    """The service as an ASGI application, with everything attached to it."""
    logs.configure(service.settings.service, service.settings.log_level)
    fault_points.arm(service.settings.fault, service.settings.fault_file)
    app = FastAPI(
        title=f"hoso {service.name}",
        version="1",
        lifespan=lambda _: _lifespan(service, parts),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service, app.state.access = service, service.access
    app.add_middleware(body.NoNul)
    app.add_middleware(AccessLog)
    problems.install(app)
    openapi.complete(app)
    # Starlette compares routes one by one: the service's own come first, those with the most requests before others.
    for part in parts:
        for router in part.routers:
            app.include_router(router)
    app.include_router(health.router(service.metrics_registry, lambda: _readiness(service, parts)))
    return app


def run(app: FastAPI) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully (`shared.http.server`)."""
    service: Service = app.state.service
    settings = service.settings

    def on_stop() -> None:
        service.stopping = True

    gc_timer.start()
    serve(app, host=settings.host, port=settings.port, drain_s=settings.drain_s, on_stop=on_stop)


@contextlib.asynccontextmanager
async def _lifespan(service: Service, parts: Sequence[Part]) -> AsyncIterator[None]:
    tasks: list[asyncio.Task[None]] = []
    tasks.append(asyncio.create_task(_prepare(service, parts, tasks)))
    tasks[0].add_done_callback(_end_process_on_error)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if service._pool is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(service._pool.close(), 5)
        log.info("stopped")


async def _prepare(service: Service, parts: Sequence[Part], tasks: list[asyncio.Task[None]]) -> None:
    """Connect, migrate and run the `on_ready` steps; then start the background tasks and add them to `tasks`."""
    settings = service.settings
    pool = await wait_for_pool(settings.database.get_secret_value(), name=service.name, size=settings.pool_size)
    packages = [package for part in parts for package in part.migrations] + [f"services.{service.name}"]
    await _until_done(lambda: migrate(pool, packages))
    service.use(pool)
    for part in parts:
        for step in part.on_ready:
            await _until_done(step)
    service.prepared = True
    tasks += [asyncio.create_task(_run_for_ever(task)) for part in parts for task in part.background]
    refreshers = [refresher for part in parts for refresher in part.refreshers]
    tasks.append(asyncio.create_task(_refresh(service, refreshers)))
    log.info("ready", port=settings.port)


def _name_of(task: Task) -> str:
    """The function's name, never its arguments: a log line must not show what they hold."""
    function: Any = task.func if isinstance(task, functools.partial) else task
    return str(getattr(function, "__qualname__", type(function).__name__))


async def _run_for_ever(task: Task) -> None:
    name = _name_of(task)
    while True:
        try:
            await task()
        except asyncio.CancelledError:
            # A client library may raise CancelledError although nobody cancelled this task: it must not end silently.
            if (current := asyncio.current_task()) is None or current.cancelling():
                raise
            log.warning("a library cancelled a background task, which starts again", task=name)
        except Exception as error:
            if not is_transient(error):
                log.exception("a background task failed and starts again", task=name)
        await asyncio.sleep(RESTART_AFTER_S)


async def _until_done(step: Task) -> None:
    while True:
        try:
            await step()
            return
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning(
                "a step of the start failed and is tried again", step=_name_of(step), error=type(error).__name__
            )
        await asyncio.sleep(0.5)


def _end_process_on_error(task: asyncio.Task[None]) -> None:
    """End the process when the start fails for good: a person must mend a wrong password or a broken migration."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("cannot start", exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)


async def _refresh(service: Service, refreshers: Sequence[Task]) -> None:
    """Set the gauges every `refresh_s` seconds, and run the garbage collector when it is due."""
    while True:
        try:
            for refresher in refreshers:
                await refresher()
            service.refreshed.set_to_current_time()
            gc_timer.run_due()
        except Exception as error:
            if not is_transient(error):
                log.exception("gauges could not be refreshed")
        await asyncio.sleep(service.settings.refresh_s)


async def _readiness(service: Service, parts: Sequence[Part]) -> ReadinessReport:
    """Ready when the database answers and the service is prepared, whatever the broker and the registry do."""
    try:
        await asyncio.wait_for(service.pool().fetchval("select 1"), 3)
        if not service.prepared:
            raise NotReady(service.name)
        ready, status = True, "ready"
    except Exception as error:
        if not is_transient(error):
            raise
        ready, status = False, "unavailable"
    if service.stopping:
        ready, status = False, "stopping"
    fields: dict[str, Any] = {"status": status, "service": service.name}
    for part in reversed(parts):
        fields |= part.readiness()
    return ReadinessReport(ready, fields)
