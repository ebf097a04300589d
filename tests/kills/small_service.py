"""The smallest service as a process: it consumes submissions, emits one event for each and publishes it.

`python -m tests.kills.small_service`, with HOSO_DATABASE, HOSO_KAFKA, HOSO_KAFKA_FLAVOUR, HOSO_FAULT, HOSO_FAULT_FILE.
"""

from __future__ import annotations

import asyncio
import os

from prometheus_client import CollectorRegistry

from shared import fault_points
from shared.contract.events import SUBMISSIONS
from shared.inbox.consumer import Consumer, Inbox
from shared.kafka.settings import KafkaSettings
from shared.kafka.subscription import Subscription
from shared.outbox.publish import Outbox
from shared.outbox.relay import Relay
from shared.postgres import pool as database
from shared.telemetry import logs
from shared.telemetry.metrics import DeliveryMetrics, StageMetrics
from tests.shared import world


async def main() -> None:
    logs.configure("workflow", "INFO")
    fault_points.arm(os.environ.get("HOSO_FAULT", ""), os.environ.get("HOSO_FAULT_FILE", ""))
    dsn = os.environ["HOSO_DATABASE"]
    kafka = KafkaSettings(os.environ["HOSO_KAFKA"], os.environ["HOSO_KAFKA_FLAVOUR"])
    pool = await database.open_pool(dsn, name="workflow", size=6)
    outbox, metrics = Outbox(lambda: pool), DeliveryMetrics(CollectorRegistry(), service="workflow")
    relay = Relay(
        service="workflow",
        dsn=dsn,
        pool=lambda: pool,
        kafka=kafka,
        wake=outbox.wake,
        metrics=metrics,
        stages=StageMetrics(CollectorRegistry()),
    )
    consumer = Consumer(Inbox([SUBMISSIONS], world.open_answering, world.HANDLERS), outbox, metrics)
    subscription = Subscription(
        service="workflow", topics=[SUBMISSIONS], kafka=kafka, pool=lambda: pool, apply=consumer.apply, metrics=metrics
    )
    await asyncio.gather(relay.run(), subscription.run())


if __name__ == "__main__":
    asyncio.run(main())
