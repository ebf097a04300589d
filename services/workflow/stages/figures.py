"""The figures of each stage, read from the tasks: arrivals, departures, who waits since when, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from services.workflow.app import WorkflowApp
from services.workflow.clock.calendar import WorkingCalendar
from services.workflow.metrics import NoticeCount
from services.workflow.stages import queries
from services.workflow.stages.verdict import StageFigures
from services.workflow.tables import TASK_STAGES
from shared.clock import wall_now
from shared.contract.stages import HUMAN
from shared.outbox import progress

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

WINDOW_OFFICE_S = 4 * 3600
"""Arrivals and departures are counted over so many seconds of office time."""
NO_PERCENTILES = (None, None)


async def list_figures(app: WorkflowApp, agency: str | None = None) -> list[StageFigures]:
    """All stages in their order. `relay` and `notify` belong to no agency: with an agency they are left out."""
    pool, office_now, now = app.service.pool(), app.service.office.now(), wall_now()
    calendar = app.catalogue.calendar()
    since = now - timedelta(seconds=WINDOW_OFFICE_S / app.service.office.speed)
    stages = (agency, TASK_STAGES, queries.IS_MACHINE)
    counts = await count_open_tasks(app, agency)
    oldest = await fetch_by_stage(pool, queries.OLDEST, *stages)
    moved = await fetch_by_stage(pool, queries.MOVED, *stages, since)
    percentiles = await fetch_by_stage(pool, queries.WAITS, *stages)
    figures = []
    for stage in TASK_STAGES:
        wait_p50_s, wait_p95_s = value_of(percentiles, stage, "waits", NO_PERCENTILES)
        service_p50_s, service_p95_s = value_of(percentiles, stage, "services", NO_PERCENTILES)
        figures.append(
            StageFigures(
                stage=stage,
                arrived=value_of(moved, stage, "arrived", 0),
                left=value_of(moved, stage, "departed", 0),
                waiting=value_of(counts, stage, "in_stage", 0),
                oldest_seconds=age_of(calendar, stage, oldest.get(stage), office_now, now),
                oldest_since=value_of(oldest, stage, "entered_office_at", None),
                wait_p50_s=wait_p50_s,
                wait_p95_s=wait_p95_s,
                service_p50_s=service_p50_s,
                service_p95_s=service_p95_s,
                target_seconds=app.delivery.targets[stage],
                counted_s=(now - value_of(moved, stage, "since", since)).total_seconds(),
                short_of=value_of(oldest, stage, "short_of", None),
            )
        )
    if agency is None:
        figures += [await relay_figures(app, since), await notify_figures(app, since)]
    return figures


async def fetch_by_stage(pool: Pool, query: str, agency: str | None, *arguments: Any) -> dict[str, Any]:
    """The rows of one of the `queries`, by stage."""
    # Two texts have two plans. With one text for both, the planner could use no index for either.
    condition = "$1::text is null" if agency is None else "agency = $1"
    return {row["stage"]: row for row in await pool.fetch(query.format(agency=condition), agency, *arguments)}


async def count_open_tasks(app: WorkflowApp, agency: str | None) -> dict[str, Any]:
    """For each stage, how many dossiers are in it, wait, are worked on, are overdue or due within a working day."""
    office_now = app.service.office.now()
    one_day_on = app.catalogue.calendar().add_working_seconds(office_now, 8 * 3600)
    return await fetch_by_stage(
        app.service.pool(), queries.OPEN_TASKS, agency, TASK_STAGES, queries.IS_MACHINE, office_now, one_day_on
    )


def value_of(rows: Mapping[str, Any], stage: str, name: str, default: Any) -> Any:
    """The column `name` of the stage's row; `default` where there is no row or no value."""
    row = rows.get(stage)
    return default if row is None or row[name] is None else row[name]


def age_of(calendar: WorkingCalendar, stage: str, oldest: Any | None, office_now: datetime, now: datetime) -> float:
    """The age of the oldest task: working seconds in human stages, wall seconds in machine stages."""
    if oldest is None:
        return 0.0
    if stage in HUMAN:
        return max(calendar.working_seconds(oldest["entered_office_at"], office_now), 0.0)
    entered_at: datetime = oldest["entered_at"]
    return max((now - entered_at).total_seconds(), 0.0)


async def relay_figures(app: WorkflowApp, since: datetime) -> StageFigures:
    """The stage `relay`: this service's own relay. The relays of the others are in their metrics."""
    pool = app.service.pool()
    waiting, oldest = await progress.pending(pool)
    sent = await pool.fetchrow(queries.SENT, since)
    assert sent is not None
    arrived = sent["arrived"] + await pool.fetchval(queries.UNSENT, sent["since"], queries.MAX_COUNTED)
    counted_s = (wall_now() - sent["since"]).total_seconds()
    return _machine_figures(app, "relay", _Queue(arrived, sent["departed"], waiting, oldest, counted_s))


async def notify_figures(app: WorkflowApp, since: datetime) -> StageFigures:
    """The stage `notify`: notices that were asked for and whose outcome has not come back."""
    row = await app.service.pool().fetchrow(
        "select count(*) as waiting, min(wanted_at) as oldest,"
        " count(*) filter (where wanted_at > $1) as arrived from notices_awaited",
        since,
    )
    assert row is not None
    counts, wanted = app.metrics.notice_counts, app.metrics.notices_wanted
    counts.append(NoticeCount(wall_now(), row["waiting"], wanted))
    while len(counts) > 1 and counts[1].at <= since:
        counts.popleft()
    _, waiting_then, wanted_then = counts[0]
    # Departures are not stored: they are the arrivals less the growth of the queue.
    arrived = max(row["arrived"], wanted - wanted_then)
    left = max(arrived - (row["waiting"] - waiting_then), 0)
    oldest = row["oldest"].timestamp() if row["oldest"] else None
    counted_s = WINDOW_OFFICE_S / app.service.office.speed
    return _machine_figures(app, "notify", _Queue(arrived, left, row["waiting"], oldest, counted_s))


class _Queue(NamedTuple):
    """`oldest`: when the oldest came, in seconds since 1970. `arrived` and `left` were counted over `counted_s`."""

    arrived: int
    left: int
    waiting: int
    oldest: float | None
    counted_s: float


def _machine_figures(app: WorkflowApp, stage: str, queue: _Queue) -> StageFigures:
    return StageFigures(
        stage=stage,
        arrived=queue.arrived,
        left=queue.left,
        waiting=queue.waiting,
        oldest_seconds=max(time.time() - queue.oldest, 0.0) if queue.oldest else 0.0,
        oldest_since=app.service.office.at(queue.oldest) if queue.oldest else None,
        wait_p50_s=None,
        wait_p95_s=None,
        service_p50_s=None,
        service_p95_s=None,
        target_seconds=app.delivery.targets[stage],
        counted_s=queue.counted_s,
    )
