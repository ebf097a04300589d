"""The delivery core's gauges, read from the database in the background and never inside a scrape."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shared import cursors

if TYPE_CHECKING:
    from shared.service import Service


async def refresh(service: Service) -> None:
    """Outbox depth and age, held events, and the relay as a stage of its own."""
    now = time.time()
    waiting, oldest = await cursors.pending(service.pool())
    service.delivery.pending.set(waiting)
    service.delivery.oldest_pending.set(oldest or now)
    relay = service.stages
    relay.waiting.labels("relay").set(waiting)
    relay.in_progress.labels("relay").set(0)
    relay.oldest_timestamp.labels("relay").set(oldest or now)
    relay.oldest.labels("relay").set(max(now - oldest, 0.0) if oldest else 0.0)
    relay.target.labels("relay").set(service.targets["relay"])
    relay.workers.labels("relay").set(1 if service.relay and service.relay.connected else 0)
    topics = service.subscription.topics if service.subscription else ()
    held = {
        row["topic"]: row["held"]
        for row in await service.pool().fetch("select topic::text as topic, count(*) as held from held group by 1")
    }
    for topic in topics:
        service.delivery.held.labels(topic).set(held.get(topic, 0))
