"""The stages' figures, read from the tasks: for `GET /v1/stages`, and every two seconds for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from shared import cursors
from shared.access import Caller, allow
from shared.body import dumps
from shared.office import wall_now
from shared.service import Service
from shared.stages import HUMAN, STAGES

from .verdict import StageFigures, verdict
from .working_calendar import WorkingCalendar

if TYPE_CHECKING:
    from shared.database import Pool

WINDOW_OFFICE_S = 4 * 3600
SAMPLE = 1_000

STANDING = """
  select stage, count(*) as standing, count(*) filter (where state = 'started') as started,
         min(entered_at) as entered_at, min(entered_office_at) as entered_office_at,
         (array_agg(waiting_for order by entered_at))[1] as waiting_for,
         count(*) filter (where due_at < $2) as overdue,
         count(*) filter (where due_at >= $2 and due_at < $3) as due_soon
    from tasks where state <> 'closed' and ($1::text is null or agency = $1) group by stage
"""
MOVED = """
  select s as stage, o.entered + c.entered as arrived, c.departed
    from unnest($3::text[]) as s
   cross join lateral (select count(*) as entered from tasks t where t.stage = s and t.state <> 'closed'
      and t.entered_at > $2 and ($1::text is null or agency = $1)) o
   cross join lateral (select count(*) as departed, count(*) filter (where t.entered_at > $2) as entered from tasks t
      where t.stage = s and t.state = 'closed' and t.left_at > $2 and ($1::text is null or agency = $1)) c
"""
WAITS = """
  select s as stage, percentile_cont(array[0.5, 0.95]) within group (order by t.wait_s) as waits,
         percentile_cont(array[0.5, 0.95]) within group (order by t.service_s) as services
    from unnest($2::text[]) as s cross join lateral (
      select wait_s, service_s from tasks t where t.stage = s and t.state = 'closed'
         and ($1::text is null or agency = $1) order by left_at desc limit $3) t
   group by s
"""


async def figures(service: Service, calendar: WorkingCalendar, agency: str | None = None) -> list[StageFigures]:
    """All stages in their order. `relay` and `notify` belong to no agency: they are there when none is asked for."""
    pool, office_now, now = service.pool(), service.office.now(), wall_now()
    since = now - timedelta(seconds=WINDOW_OFFICE_S / service.office.speed)
    stages = [stage for stage in STAGES if stage not in ("relay", "notify")]
    standing = await _by_stage(pool, STANDING, agency, office_now, _one_working_day_on(calendar, office_now))
    moved = await _by_stage(pool, MOVED, agency, since, stages)
    waits = await _by_stage(pool, WAITS, agency, stages, SAMPLE)
    found = [
        _figures(service, calendar, stage, standing.get(stage), moved.get(stage), waits.get(stage), office_now, now)
        for stage in stages
    ]
    if agency is None:
        found += [await _relay(service, since), await _notify(service, since)]
    return found


async def _by_stage(pool: Pool, query: str, *arguments: Any) -> dict[str, Any]:
    return {row["stage"]: row for row in await pool.fetch(query, *arguments)}


def _one_working_day_on(calendar: WorkingCalendar, office_now: datetime) -> datetime:
    return calendar.add_working_seconds(office_now, 8 * 3600)


def _figures(
    service: Service,
    calendar: WorkingCalendar,
    stage: str,
    standing: Any | None,
    moved: Any | None,
    waits: Any | None,
    office_now: datetime,
    now: datetime,
) -> StageFigures:
    age = 0.0
    if standing is not None and stage in HUMAN:
        age = calendar.working_seconds(standing["entered_office_at"], office_now)
    elif standing is not None:
        age = max((now - standing["entered_at"]).total_seconds(), 0.0)
    return StageFigures(
        stage=stage,
        arrived=moved["arrived"] if moved else 0,
        left=moved["departed"] if moved else 0,
        waiting=standing["standing"] if standing else 0,
        oldest_seconds=age,
        oldest_since=standing["entered_office_at"] if standing else None,
        wait_p50_s=_at(waits, "waits", 0),
        wait_p95_s=_at(waits, "waits", 1),
        service_p50_s=_at(waits, "services", 0),
        service_p95_s=_at(waits, "services", 1),
        target_seconds=service.targets[stage],
        short_of=standing["waiting_for"] if standing else None,
    )


def _at(row: Any | None, name: str, place: int) -> float | None:
    return row[name][place] if row is not None and row[name] is not None else None


async def _relay(service: Service, since: datetime) -> StageFigures:
    """This service's own relay; the others' are in their metrics."""
    waiting, oldest = await cursors.pending(service.pool())
    row = await service.pool().fetchrow(
        "select coalesce(sum(to_id - from_id + 1), 0)::bigint as sent from sent where sent_at > $1", since
    )
    sent = int(row["sent"]) if row else 0
    now = time.time()
    return StageFigures(
        stage="relay",
        arrived=sent + waiting,
        left=sent,
        waiting=waiting,
        oldest_seconds=max(now - oldest, 0.0) if oldest else 0.0,
        oldest_since=service.office.at(oldest) if oldest else None,
        wait_p50_s=None,
        wait_p95_s=None,
        service_p50_s=None,
        service_p95_s=None,
        target_seconds=service.targets["relay"],
    )


async def _notify(service: Service, since: datetime) -> StageFigures:
    """Notices wanted whose outcome has not come back: the stage as it is felt from here."""
    row = await service.pool().fetchrow(
        "select count(*) as waiting, min(wanted_at) as oldest,"
        " count(*) filter (where wanted_at > $1) as arrived from notices_awaited",
        since,
    )
    assert row is not None
    oldest = row["oldest"].timestamp() if row["oldest"] else None
    return StageFigures(
        stage="notify",
        arrived=row["arrived"],
        left=0,
        waiting=row["waiting"],
        oldest_seconds=max(time.time() - oldest, 0.0) if oldest else 0.0,
        oldest_since=service.office.at(oldest) if oldest else None,
        wait_p50_s=None,
        wait_p95_s=None,
        service_p50_s=None,
        service_p95_s=None,
        target_seconds=service.targets["notify"],
    )


async def refresh(service: Service) -> None:
    """Set the gauges. A stage that is empty says "now" as its oldest time, so that a dead refresher grows old."""
    rows = await figures(service, service.extras["calendar"]())
    now = time.time()
    gauges = service.stages
    for row in rows:
        if row.stage in ("relay", "notify"):
            continue
        since = service.office.wall(row.oldest_since) if row.oldest_since else now
        gauges.oldest_timestamp.labels(row.stage).set(since)
        gauges.oldest.labels(row.stage).set(row.oldest_seconds)
        gauges.target.labels(row.stage).set(row.target_seconds)
    await _set_counts(service, rows)


async def _set_counts(service: Service, rows: Sequence[StageFigures]) -> None:
    calendar: WorkingCalendar = service.extras["calendar"]()
    office_now = service.office.now()
    standing = await _by_stage(service.pool(), STANDING, None, office_now, _one_working_day_on(calendar, office_now))
    for row in rows:
        if row.stage in ("relay", "notify"):
            continue
        found = standing.get(row.stage)
        gauges = service.stages
        gauges.waiting.labels(row.stage).set(found["standing"] - found["started"] if found else 0)
        gauges.in_progress.labels(row.stage).set(found["started"] if found else 0)
        gauges.overdue.labels(row.stage).set(found["overdue"] if found else 0)
        gauges.due_soon.labels(row.stage).set(found["due_soon"] if found else 0)


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["operations"])

    @routes.get("/v1/stages")
    async def get_stages(
        _: Annotated[Caller, Depends(allow())], agency: Annotated[str | None, Query(max_length=60)] = None
    ) -> Response:
        """Which stage is the bottleneck, since when and why."""
        rows = await figures(service, service.extras["calendar"](), agency)
        speed = service.office.speed
        return Response(
            dumps(verdict(rows, speed=speed, window_s=WINDOW_OFFICE_S / speed)), media_type="application/json"
        )

    return routes
