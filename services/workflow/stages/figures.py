"""The figures of each stage, read from the tasks: arrivals, departures, who waits since when, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from services.workflow.app import WorkflowApp
from services.workflow.clock.calendar import WorkingCalendar
from services.workflow.metrics import NoticeCount
from services.workflow.stages import queries
from services.workflow.stages.verdict import StageFigures
from shared.clock import wall_now
from shared.contract.stages import HUMAN
from shared.outbox import progress

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

WINDOW_OFFICE_S = 4 * 3600
"""Arrivals and departures are counted over so many seconds of office time."""


async def figures(app: WorkflowApp, agency: str | None = None) -> list[StageFigures]:
    """All stages in their order. `relay` and `notify` belong to no agency: they are there when none is asked for."""
    pool, office_now, now = app.service.pool(), app.service.office.now(), wall_now()
    calendar = app.catalogue.calendar()
    since = now - timedelta(seconds=WINDOW_OFFICE_S / app.service.office.speed)
    stages = (agency, queries.OWN, queries.AWAITS_MACHINE)
    in_stage = await standing(app, agency)
    oldest = await by_stage(pool, queries.OLDEST, *stages)
    moved = await by_stage(pool, queries.MOVED, *stages, since)
    waits = await by_stage(pool, queries.WAITS, *stages)
    found = [
        StageFigures(
            stage=stage,
            arrived=value_of(moved, stage, "arrived", 0),
            left=value_of(moved, stage, "departed", 0),
            waiting=value_of(in_stage, stage, "standing", 0),
            oldest_seconds=age_of(calendar, stage, oldest.get(stage), office_now, now),
            oldest_since=value_of(oldest, stage, "entered_office_at", None),
            wait_p50_s=value_of(waits, stage, "waits", (None, None))[0],
            wait_p95_s=value_of(waits, stage, "waits", (None, None))[1],
            service_p50_s=value_of(waits, stage, "services", (None, None))[0],
            service_p95_s=value_of(waits, stage, "services", (None, None))[1],
            target_seconds=app.delivery.targets[stage],
            counted_s=(now - value_of(moved, stage, "since", since)).total_seconds(),
            short_of=value_of(oldest, stage, "short_of", None),
        )
        for stage in queries.OWN
    ]
    if agency is None:
        found += [await _relay(app, since), await notices(app, since)]
    return found


async def by_stage(pool: Pool, query: str, agency: str | None, *arguments: Any) -> dict[str, Any]:
    # Two texts, two plans: with one text the planner could count on no index for either.
    whose = "$1::text is null" if agency is None else "agency = $1"
    return {row["stage"]: row for row in await pool.fetch(query.format(agency=whose), agency, *arguments)}


async def standing(app: WorkflowApp, agency: str | None) -> dict[str, Any]:
    """Of each stage: how many are in it, wait, are worked on, are overdue or due within a working day."""
    office_now = app.service.office.now()
    one_day_on = app.catalogue.calendar().add_working_seconds(office_now, 8 * 3600)
    return await by_stage(
        app.service.pool(), queries.STANDING, agency, queries.OWN, queries.AWAITS_MACHINE, office_now, one_day_on
    )


def value_of(rows: Mapping[str, Any], stage: str, name: str, otherwise: Any) -> Any:
    row = rows.get(stage)
    return otherwise if row is None or row[name] is None else row[name]


def age_of(calendar: WorkingCalendar, stage: str, oldest: Any | None, office_now: datetime, now: datetime) -> float:
    """Of the oldest: working seconds in human stages, wall seconds in machine stages."""
    if oldest is None:
        return 0.0
    if stage in HUMAN:
        return max(calendar.working_seconds(oldest["entered_office_at"], office_now), 0.0)
    entered_at: datetime = oldest["entered_at"]
    return max((now - entered_at).total_seconds(), 0.0)


async def _relay(app: WorkflowApp, since: datetime) -> StageFigures:
    """This service's own relay; the others' are in their metrics."""
    pool = app.service.pool()
    waiting, oldest = await progress.pending(pool)
    sent = await pool.fetchrow(queries.SENT, since)
    assert sent is not None
    arrived = sent["arrived"] + await pool.fetchval(queries.UNSENT, sent["since"], queries.MAX_COUNTED)
    counted_s = (wall_now() - sent["since"]).total_seconds()
    return _machine(app, "relay", arrived, sent["departed"], waiting, oldest, counted_s)


async def notices(app: WorkflowApp, since: datetime) -> StageFigures:
    """Notices wanted whose outcome has not come back: the stage as it is felt from here."""
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
    # What has left is not stored: it is what came, less what the queue has grown by.
    arrived = max(row["arrived"], wanted - wanted_then)
    left = max(arrived - (row["waiting"] - waiting_then), 0)
    oldest = row["oldest"].timestamp() if row["oldest"] else None
    counted_s = WINDOW_OFFICE_S / app.service.office.speed
    return _machine(app, "notify", arrived, left, row["waiting"], oldest, counted_s)


def _machine(
    app: WorkflowApp, stage: str, arrived: int, left: int, waiting: int, oldest: float | None, counted_s: float
) -> StageFigures:
    """`oldest`: when it came, in seconds since 1970. `arrived` and `left` were counted over `counted_s` seconds."""
    return StageFigures(
        stage=stage,
        arrived=arrived,
        left=left,
        waiting=waiting,
        oldest_seconds=max(time.time() - oldest, 0.0) if oldest else 0.0,
        oldest_since=app.service.office.at(oldest) if oldest else None,
        wait_p50_s=None,
        wait_p95_s=None,
        service_p50_s=None,
        service_p95_s=None,
        target_seconds=app.delivery.targets[stage],
        counted_s=counted_s,
    )
