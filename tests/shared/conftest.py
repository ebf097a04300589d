"""A database with the table of `world.py`, a producer, and subscriptions and relays that end with the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest_asyncio
from aiokafka import AIOKafkaProducer

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import ensure_topics
from tests.shared import world
from tests.shared.listening import Listener
from tests.shared.relaying import Sender

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import MakePool


@pytest_asyncio.fixture
async def pool(make_pool: MakePool) -> Pool:
    made = await make_pool("shared")
    await made.execute(world.TABLE)
    return made


@pytest_asyncio.fixture
async def listen(pool: Pool, kafka: KafkaSettings) -> AsyncIterator[Callable[..., Listener]]:
    await ensure_topics(kafka)
    started: list[Listener] = []

    def begin(apply: Any = None) -> Listener:
        started.append(Listener(pool, kafka, apply))
        return started[-1]

    yield begin
    await asyncio.gather(*(listener.stop() for listener in started))


@pytest_asyncio.fixture
async def producer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    made = kafka.producer("test")
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def start(make_pool: MakePool, kafka: KafkaSettings) -> AsyncIterator[Callable[..., Any]]:
    """`await start()`: a running relay and its pool; with `dsn, pool` a second one beside it."""
    started: list[Sender] = []

    async def begin(dsn: str = "", pool: Pool | None = None, **more: Any) -> tuple[str, Pool, Sender]:
        if pool is None:
            dsn, pool = await make_pool.with_dsn("shared")
        started.append(Sender(dsn, pool, kafka, **more))
        return dsn, pool, started[-1]

    yield begin
    for sender in started:
        await sender.stop()
