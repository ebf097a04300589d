"""A service process, the same for all four: pool, relay, subscription, health, metrics, and an orderly stop.

HTTP serves at once. The database and the broker are connected in the background and tried for ever: a service starts
while either is down, and says so in `/readyz` (the database) and in a field and a metric (the broker).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from shared import fault_points
from shared.clock import OfficeClock
from shared.contract.envelope import Received
from shared.contract.events import Fact
from shared.contract.stages import targets
from shared.http import body, problems
from shared.http.access import Access
from shared.http.access_log import AccessLog
from shared.http.openapi import gather_schemas
from shared.http.server import serve
from shared.inbox import parked
from shared.inbox.consumer import Consumer, Handler, UnitOfWork
from shared.kafka.settings import KafkaSettings
from shared.kafka.subscription import Subscription
from shared.outbox import gauges
from shared.outbox.publish import Wake
from shared.outbox.relay import Relay
from shared.outbox.state_records import StateOf
from shared.postgres.migrate import migrate
from shared.postgres.pool import wait_for_pool
from shared.postgres.transient import NotReady, is_transient
from shared.privacy.sealed import Sealer
from shared.settings import Settings
from shared.telemetry import gc_timer, logs
from shared.telemetry.metrics import DeliveryMetrics, StageMetrics

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Listening:
    """What a service hears: topics, how to lock and load what a batch concerns, and who handles which fact."""

    topics: Sequence[str]
    open_work: Callable[[Tx, Sequence[Received]], Awaitable[UnitOfWork]]
    handlers: Mapping[type[Fact], Handler]
    unhurried: bool = False
    """Nobody waits for what it hears: the broker is asked rarely, traffic or not."""


Background = Callable[["Service"], Awaitable[None]]


@dataclass
class Service:
    """One running service: what its routes, handlers and background tasks share."""

    settings: Settings
    office: OfficeClock = field(init=False)
    sealer: Sealer = field(init=False)
    access: Access = field(init=False)
    targets: dict[str, float] = field(init=False)
    wake: Wake = field(init=False, default_factory=Wake)
    registry: CollectorRegistry = field(init=False, default_factory=CollectorRegistry)
    delivery: DeliveryMetrics = field(init=False)
    stages: StageMetrics = field(init=False)
    relay: Relay | None = field(init=False, default=None)
    subscription: Subscription | None = field(init=False, default=None)
    consumer: Consumer | None = field(init=False, default=None)
    ready_when: Callable[[], dict[str, Any]] = field(init=False, default=dict)
    """More fields for `/readyz`."""
    extras: dict[str, Any] = field(init=False, default_factory=dict)
    """What a service's own routes and background tasks share."""
    prepared: bool = field(init=False, default=False)
    """The migrations and `on_ready` are done."""
    stopping: bool = field(init=False, default=False)
    """A signal to stop has come: `/readyz` says so, everything else goes on until the last request is answered."""
    _pool: Pool | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        said = self.settings
        self.office = OfficeClock.of(said.office0, said.wall0, said.speed)
        self.sealer = Sealer(said.seal_keys.get_secret_value())
        self.access = Access(said.tokens.get_secret_value())
        self.targets = targets(said.targets, said.speed)
        self.delivery = DeliveryMetrics(self.registry, service=said.service)
        self.stages = StageMetrics(self.registry)

    @property
    def name(self) -> str:
        return self.settings.service

    def pool(self) -> Pool:
        """The pool. Raises NotReady (503) until PostgreSQL has answered and the migrations are done."""
        if self._pool is None:
            raise NotReady(self.name)
        return self._pool

    def kafka(self) -> KafkaSettings:
        return KafkaSettings(self.settings.kafka, self.settings.kafka_flavour)


def build(
    settings: Settings,
    *,
    routers: Callable[[Service], Sequence[APIRouter]],
    listening: Callable[[Service], Listening] | None = None,
    state_of: Callable[[Service], StateOf] | None = None,
    state_source: str = "",
    background: Sequence[Background] = (),
    refreshers: Sequence[Background] = (),
    on_ready: Sequence[Background] = (),
) -> FastAPI:
    """The service as an ASGI application. `on_ready` runs once, after the migrations and before anything else.

    `background` tasks run until the service stops and are started again when they raise; `refreshers` are called
    every `refresh_s` to set gauges.
    """
    logs.configure(settings.service, settings.log_level)
    fault_points.arm(settings.fault, settings.fault_file)
    service = Service(settings)

    async def prepare(tasks: list[asyncio.Task[None]]) -> None:
        pool = await wait_for_pool(settings.database.get_secret_value(), name=service.name, size=settings.pool_size)
        await _until_done(lambda: migrate(pool, ["shared", f"services.{service.name}"]))
        service._pool = service.wake.pool = pool
        for step in on_ready:
            await _until_done(lambda step=step: step(service))  # type: ignore[misc]
        service.prepared = True
        service.relay = Relay(
            service=service.name,
            dsn=settings.database.get_secret_value(),
            pool=service.pool,
            kafka=service.kafka(),
            wake=service.wake,
            metrics=service.delivery,
            stages=service.stages,
            state_of=state_of(service) if state_of else None,
            state_source=state_source,
        )
        running: list[Background] = [_run_relay, *background]
        if listening is not None:
            _listen(service, listening(service))
            running.append(_run_subscription)
        tasks += [asyncio.create_task(_for_ever(task, service)) for task in running]
        tasks.append(asyncio.create_task(_refresh(service, refreshers)))
        log.info("ready", port=settings.port)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks: list[asyncio.Task[None]] = []
        tasks.append(asyncio.create_task(prepare(tasks)))
        tasks[0].add_done_callback(_fail_loudly)
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

    app = FastAPI(
        title=f"hoso {service.name}",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(body.NoNul)
    app.add_middleware(AccessLog)
    problems.install(app)
    gather_schemas(app)
    # In the order of how often they are asked: each router is tried, its routes one by one, until one fits.
    for router in routers(service):
        app.include_router(router)
    app.include_router(_health(service))
    app.include_router(parked.router())
    return app


def run(app: FastAPI) -> None:
    """Serve until SIGTERM or SIGINT; what was asked is answered first (`shared.http.server`)."""
    service: Service = app.state.service
    said = service.settings
    gc_timer.start()
    serve(app, host=said.host, port=said.port, drain_s=said.drain_s, on_stop=lambda: setattr(service, "stopping", True))


def _listen(service: Service, listening: Listening) -> None:
    service.consumer = Consumer(
        pool=service.pool,
        open_work=listening.open_work,
        handlers=listening.handlers,
        wake=service.wake,
        metrics=service.delivery,
    )
    service.subscription = Subscription(
        service=service.name,
        topics=listening.topics,
        kafka=service.kafka(),
        pool=service.pool,
        apply=service.consumer.apply,
        metrics=service.delivery,
        unhurried=listening.unhurried,
    )


async def _run_relay(service: Service) -> None:
    assert service.relay is not None
    await service.relay.run()


async def _run_subscription(service: Service) -> None:
    assert service.subscription is not None
    await service.subscription.run()


async def _for_ever(task: Background, service: Service) -> None:
    while True:
        try:
            await task(service)
        except asyncio.CancelledError:
            # A client library's inner cancellation is not ours: taken for it, the task would end without a word.
            if (us := asyncio.current_task()) is None or us.cancelling():
                raise
            log.warning("a background task was cancelled from inside and starts again")
        except Exception as error:
            if not is_transient(error):
                log.exception("a background task failed and starts again", task=getattr(task, "__name__", str(task)))
        await asyncio.sleep(1)


async def _until_done(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await step()
            return
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("tried again", error=type(error).__name__)
        await asyncio.sleep(0.5)


def _fail_loudly(task: asyncio.Task[None]) -> None:
    """A wrong password or a broken migration is not going to pass: end the process, so that somebody looks."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("cannot start", exc_info=error)
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)


async def _refresh(service: Service, refreshers: Sequence[Background]) -> None:
    while True:
        try:
            await gauges.refresh(
                service.pool(),
                service.delivery,
                service.stages,
                relay_target_s=service.targets["relay"],
                relay_connected=service.relay is not None and service.relay.connected,
                topics=service.subscription.topics if service.subscription else (),
            )
            for refresher in refreshers:
                await refresher(service)
            service.delivery.refreshed.set_to_current_time()
            gc_timer.run_due()
        except Exception as error:
            if not is_transient(error):
                log.exception("gauges not refreshed")
        await asyncio.sleep(service.settings.refresh_s)


def _health(service: Service) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz() -> Response:
        try:
            await asyncio.wait_for(service.pool().fetchval("select 1"), 3)
            if not service.prepared:
                raise NotReady(service.name)
            state, status = "ready", 200
        except Exception as error:
            if not is_transient(error):
                raise
            state, status = "unavailable", 503
        if service.stopping:
            state, status = "stopping", 503
        relay, heard = service.relay, service.subscription
        up = relay is not None and relay.connected and (heard is None or heard.connected)
        fields = {"status": state, "service": service.name, "broker": "connected" if up else "connecting"}
        headers = {"Retry-After": "2"} if status == 503 else {}
        return Response(body.dumps({**fields, **service.ready_when()}), status, headers, "application/json")

    @router.get("/metrics")
    async def metrics(request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(service.registry), media_type=kind)

    return router
