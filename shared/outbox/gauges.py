"""The gauges of the delivery core, read from the database in the background and never during a scrape."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.outbox import progress
from shared.telemetry.metrics import DeliveryMetrics, StageMetrics

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


async def refresh(
    pool: Pool,
    delivery: DeliveryMetrics,
    stages: StageMetrics,
    *,
    relay_target_s: float,
    relay_connected: bool,
    topics: Sequence[str],
) -> None:
    """Set the outbox's depth and age, the held events of each of `topics`, and the figures of the stage `relay`.

    `relay_target_s`: the target of the stage `relay` in seconds.
    """
    now = time.time()
    waiting, oldest = await progress.pending(pool)
    delivery.pending.set(waiting)
    delivery.oldest_pending.set(oldest or now)
    stages.waiting.labels("relay").set(waiting)
    stages.in_progress.labels("relay").set(0)
    stages.oldest_timestamp.labels("relay").set(oldest or now)
    stages.oldest.labels("relay").set(max(now - oldest, 0.0) if oldest else 0.0)
    stages.target.labels("relay").set(relay_target_s)
    stages.workers.labels("relay").set(1 if relay_connected else 0)
    rows = await pool.fetch("select topic::text as topic, count(*) as held from held group by 1")
    held = {row["topic"]: row["held"] for row in rows}
    for topic in topics:
        delivery.held.labels(topic).set(held.get(topic, 0))
