"""The smallest service as a process of its own: hears submissions, answers each with a fact, sends what it said.

`python -m tests.kills.small_service`, with HOSO_DATABASE, HOSO_KAFKA, HOSO_KAFKA_FLAVOUR, HOSO_FAULT, HOSO_FAULT_FILE.
"""

from __future__ import annotations

import asyncio
import os

from prometheus_client import CollectorRegistry

from shared import database, faults, logs
from shared.consumer import Consumer
from shared.events import SUBMISSIONS
from shared.kafka import KafkaSettings
from shared.metrics import DeliveryMetrics, StageMetrics
from shared.outbox import Wake
from shared.relay import Relay
from shared.subscription import Subscription
from tests.shared import world


async def main() -> None:
    logs.configure("workflow", "INFO")
    faults.arm(os.environ.get("HOSO_FAULT", ""), os.environ.get("HOSO_FAULT_FILE", ""))
    dsn = os.environ["HOSO_DATABASE"]
    kafka = KafkaSettings(os.environ["HOSO_KAFKA"], os.environ["HOSO_KAFKA_FLAVOUR"])
    pool = await database.open_pool(dsn, name="workflow", size=6)
    wake, metrics = Wake(), DeliveryMetrics(CollectorRegistry(), service="workflow")
    wake.pool = pool
    relay = Relay(
        service="workflow",
        dsn=dsn,
        pool=lambda: pool,
        kafka=kafka,
        wake=wake,
        metrics=metrics,
        stages=StageMetrics(CollectorRegistry()),
    )
    consumer = Consumer(
        pool=lambda: pool, open_work=world.open_answering, handlers=world.HANDLERS, wake=wake, metrics=metrics
    )
    subscription = Subscription(
        service="workflow", topics=[SUBMISSIONS], kafka=kafka, pool=lambda: pool, apply=consumer.apply, metrics=metrics
    )
    await asyncio.gather(relay.run(), subscription.run())


if __name__ == "__main__":
    asyncio.run(main())
