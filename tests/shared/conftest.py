"""A database with the table of `world.py`, a producer, and group members and relays that end with the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest_asyncio
from aiokafka import AIOKafkaProducer

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import ensure_topics
from tests.shared import world
from tests.shared.group_members import GroupMember
from tests.shared.relaying import Sender

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import MakePool


@pytest_asyncio.fixture
async def pool(make_pool: MakePool) -> Pool:
    pool = await make_pool("shared")
    await pool.execute(world.TABLE)
    return pool


@pytest_asyncio.fixture
async def start_member(pool: Pool, kafka: KafkaSettings) -> AsyncIterator[Callable[..., GroupMember]]:
    await ensure_topics(kafka)
    started: list[GroupMember] = []

    def begin(apply: Any = None) -> GroupMember:
        started.append(GroupMember(pool, kafka, apply))
        return started[-1]

    yield begin
    await asyncio.gather(*(member.stop() for member in started))


@pytest_asyncio.fixture
async def producer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    producer = kafka.producer("test")
    await producer.start()
    yield producer
    await producer.stop()


@pytest_asyncio.fixture
async def start(make_pool: MakePool, kafka: KafkaSettings) -> AsyncIterator[Callable[..., Any]]:
    """`await start()` starts a relay on a new database; `await start(dsn, pool)` starts another one on the same.

    Both return the database's address, its pool and the relay.
    """
    started: list[Sender] = []

    async def begin(dsn: str = "", pool: Pool | None = None, **more: Any) -> tuple[str, Pool, Sender]:
        if pool is None:
            dsn, pool = await make_pool.with_dsn("shared")
        started.append(Sender(dsn, pool, kafka, **more))
        return dsn, pool, started[-1]

    yield begin
    for sender in started:
        await sender.stop()
