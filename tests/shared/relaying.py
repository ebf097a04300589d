"""A relay that runs in a test, and helpers that show what it has sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prometheus_client import CollectorRegistry

from shared.contract.events import SUBMISSIONS
from shared.contract.partitions import lane_of
from shared.kafka.settings import KafkaSettings
from shared.outbox import progress
from shared.outbox.publish import Wake
from shared.outbox.relay import Relay
from shared.telemetry.metrics import DeliveryMetrics, StageMetrics
from tests.shared import world
from tests.shared.reading import read_topic

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.brokers import Apache, Embedded, Given


class Sender:
    """A relay that runs in the background, as in one process."""

    def __init__(self, dsn: str, pool: Pool, kafka: KafkaSettings, **more: Any) -> None:
        self.wake = Wake(lambda: pool)
        self._metrics = DeliveryMetrics(CollectorRegistry(), service="intake")
        self.relay = Relay(
            service="intake",
            dsn=dsn,
            pool=lambda: pool,
            kafka=kafka,
            wake=self.wake,
            metrics=self._metrics,
            stages=StageMetrics(CollectorRegistry()),
            **more,
        )
        self._task = asyncio.create_task(self.relay.run())

    @property
    def refills(self) -> int:
        return int(self._metrics.refills._value.get())

    @property
    def lanes(self) -> set[int]:
        return set(self.relay._owned)

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def everything_sent(pool: Pool) -> bool:
    return not (await progress.pending(pool))[0]


async def publish_many(pool: Pool, sender: Sender, dossiers: Sequence[UUID], sequences: Sequence[int]) -> None:
    """Append and commit one event per dossier and sequence, and wake the relay after each sequence."""
    for sequence in sequences:
        sender.wake(await world.append(pool, *((dossier_id, sequence) for dossier_id in dossiers)))


async def has_records(kafka: KafkaSettings, number: int) -> bool:
    """Whether the topic of submissions has at least `number` records."""
    return len(await read_topic(kafka)) >= number


async def is_cluster_saved(pool: Pool, broker: Embedded | Apache | Given) -> bool:
    """Whether the relay has saved the id of the cluster that is there now."""
    return await progress.is_known_cluster(pool, broker.cluster_id)


async def sent_row(pool: Pool, dossier_id: UUID, offset: int, after: progress.Sent | None = None) -> progress.Sent:
    """The dossier's next event to send, or the one behind `after`, as if the broker had acknowledged it at `offset`."""
    lane = lane_of(str(dossier_id))
    lane_row = await pool.fetchrow("select epoch, sent_to from lanes where lane = $1", lane)
    assert lane_row is not None
    row = (await progress.next_chunks(pool, {lane: after.to_id if after else lane_row["sent_to"]}, 1, 10**6))[lane][0]
    acknowledged = (progress.Acknowledged(SUBMISSIONS, lane, offset, offset),)
    return progress.Sent(lane, lane_row["epoch"], row["id"], row["id"], acknowledged, (0.0,), 0.0)


async def advance(pool: Pool, *sent: progress.Sent) -> str:
    return await progress.advance(pool, sent)
