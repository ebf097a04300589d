"""A backlog of large records: intake sends it and workflow reads it in limited memory, whatever its size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bench.backlog import APPLIED, SENT, fill, peak_rss_mb, values
from shared.kafka.settings import KafkaSettings
from tests.fixtures.databases import MakePool
from tests.fixtures.services import StartService
from tests.fixtures.waiting import wait_until

COUNT, RECORD_BYTES = 6_000, 60_000
"""360 MB of records."""


async def test_a_backlog_is_sent_and_read_in_limited_memory(
    kafka: KafkaSettings, make_pool: MakePool, start_service: StartService
) -> None:
    intake_dsn, intake_pool = await make_pool.with_dsn("shared", "services.intake")
    workflow_dsn, workflow_pool = await make_pool.with_dsn("shared", "services.workflow")
    await fill(intake_dsn, COUNT, values(100, RECORD_BYTES))

    def reach(pool: object, query: str, count: int) -> Callable[[], Awaitable[bool]]:
        async def reached() -> bool:
            return int(await pool.fetchval(query)) >= count  # type: ignore[attr-defined]

        return reached

    intake = await start_service("intake", intake_dsn, kafka)
    await wait_until(reach(intake_pool, SENT, COUNT), 120, every_s=0.05)
    sending = peak_rss_mb(intake.pid)
    intake.kill()
    workflow = await start_service("workflow", workflow_dsn, kafka)
    await wait_until(reach(workflow_pool, APPLIED, COUNT // 2), 120, every_s=0.05)
    reading = peak_rss_mb(workflow.pid)
    workflow.kill()
    # MB: above what these need with the limits on unsent and unread records, and below what they need without.
    assert sending < 320
    assert reading < 450
