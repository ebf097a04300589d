"""A member of a consumer group that runs in a test, and the records that it consumes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from aiokafka import AIOKafkaProducer

from shared.contract.envelope import Record
from shared.contract.events import SUBMISSIONS
from shared.kafka.settings import KafkaSettings
from shared.kafka.subscription import Subscription
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.world import effects

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


class GroupMember:
    """A subscription that runs in the background, as in one process."""

    def __init__(self, pool: Pool, kafka: KafkaSettings, apply: Any = None) -> None:
        self.subscription = Subscription(
            service="workflow",
            topics=[SUBMISSIONS],
            kafka=kafka,
            pool=lambda: pool,
            apply=apply or world.consumer(pool).apply,
            metrics=world.metrics(),
        )
        self._task = asyncio.create_task(self.subscription.run())

    @property
    def partitions(self) -> set[int]:
        subscriber = self.subscription._subscriber
        consumer = subscriber and subscriber.consumer
        return {one.partition for one in consumer.assignment()} if consumer else set()

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def send(producer: AIOKafkaProducer, records: Sequence[Record]) -> None:
    for one in records:
        await producer.send_and_wait(one.topic, one.value, one.key, partition=one.partition, headers=list(one.headers))


async def wait_until_applied(pool: Pool, expected: Sequence[tuple[UUID, int]], bound_s: float = 20) -> None:
    """Wait until exactly these events (dossier, sequence) have taken effect, each once."""
    wanted = sorted(expected)

    async def are_applied() -> bool:
        return sorted(await effects(pool)) == wanted

    await wait_until(are_applied, bound_s, what="every event took effect")
