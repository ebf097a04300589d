"""The stages' figures, read from the tasks: for `GET /v1/stages`, and every two seconds for Prometheus."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query
from prometheus_client import Gauge
from starlette.responses import Response

from services.workflow.clock.calendar import WorkingCalendar
from services.workflow.stages.verdict import StageFigures, verdict
from shared.clock import wall_now
from shared.contract.stages import HUMAN, MACHINE, STAGES
from shared.http.access import Caller, allow
from shared.http.body import dumps
from shared.outbox import progress
from shared.service import Service

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

WINDOW_OFFICE_S = 4 * 3600
OWN = tuple(stage for stage in STAGES if stage not in ("relay", "notify"))
"""The stages that tasks stand in."""
AWAITS_MACHINE = [stage in MACHINE for stage in OWN]

# What stands in a machine's stage for an officer (a doubtful answer, a late number) is on that officer's list. Measured
# in the machine's seconds it would make the registry the bottleneck of a clerk's afternoon, and a dossier would stand
# there twice. Without it a dossier has one task in a stage, so that counting tasks counts dossiers.
STANDING = """
  select stage, standing, waiting, started, overdue, due_soon,
         (select count(distinct one) from unnest(holding) as one) as holders
    from (
      select stage, count(*) filter (where own) as standing,
             count(*) filter (where own and state <> 'started') as waiting,
             count(*) filter (where state = 'started') as started,
             array_agg(holder) filter (where state = 'started') as holding,
             count(*) filter (where not twice and due_at < $4) as overdue,
             count(*) filter (where not twice and due_at >= $4 and due_at < $5) as due_soon
        from (
          select t.stage, t.state, t.holder, t.due_at, own, not own and exists (
                   select from tasks o where o.dossier_id = t.dossier_id and o.stage = t.stage and o.role is null
                      and o.state <> 'closed') as twice
            from tasks t join unnest($2::text[], $3::boolean[]) as s (stage, machine) using (stage)
           cross join lateral (select t.role is null or not s.machine as own) as o
           where state <> 'closed' and {agency}) t
       group by stage) g
"""
# STANDING goes every two seconds through every open task there is: it does not sort, and reads nothing but its index.
OLDEST = """
  select o.stage, o.entered_at, o.entered_office_at,
         case when not exists (select 1 from blanks b where 'blanks:' || b.kind = o.waiting_for
                                  and b.next_serial <= b.serial_to - b.spoiled) then o.waiting_for end as short_of
    from unnest($2::text[], $3::boolean[]) as s (stage, machine) cross join lateral (
      select stage, entered_at, entered_office_at, waiting_for from tasks
       where stage = s.stage and state <> 'closed' and (role is null or not s.machine) and {agency}
       order by entered_at limit 1) o
"""
# A busy stage is counted back to its 2,000th departure, so that asking has a bounded cost.
MOVED = """
  select s.stage, o.entered + c.entered as arrived, c.departed, w.since
    from unnest($2::text[], $3::boolean[]) as s (stage, machine)
   cross join lateral (select coalesce((select left_at from tasks where stage = s.stage and state = 'closed'
      and left_at > $4 order by left_at desc offset 2000 limit 1), $4) as since) w
   cross join lateral (select count(*) as entered from (select 1 from tasks where stage = s.stage
      and state <> 'closed' and entered_at > w.since and (role is null or not s.machine) and {agency} limit 20000) n) o
   cross join lateral (select count(*) as departed, count(*) filter (where entered_at > w.since) as entered from tasks
      where stage = s.stage and state = 'closed' and left_at > w.since and (role is null or not s.machine)
        and {agency}) c
"""
WAITS = """
  select s.stage, percentile_cont(array[0.5, 0.95]) within group (order by t.wait_s) as waits,
         percentile_cont(array[0.5, 0.95]) within group (order by t.service_s) as services
    from unnest($2::text[], $3::boolean[]) as s (stage, machine) cross join lateral (
      select wait_s, service_s from (
        select wait_s, service_s, role, agency from tasks where stage = s.stage and state = 'closed'
         order by left_at desc limit 5000) lately
       where (role is null or not s.machine) and {agency} limit 1000) t
   group by s.stage
"""
RECORDED_ONLY = """
  select procedure_code, procedure_group, count(*) as waiting, min(recorded_at) as oldest_since
    from dossiers where state = 'recorded' and ($1::text is null or receiving_agency = $1)
   group by procedure_code, procedure_group order by oldest_since
"""
# Counted back to a lane's 500th batch at most. Only of a batch that came on both sides of `since` are events read.
SENT = """
  with lately as (
    select s.* from lanes l cross join lateral (
      select *, row_number() over (order by to_id desc) as nth from sent where lane = l.lane
       order by to_id desc limit 500) s
  ), w as (select greatest($1::timestamptz, max(sent_at) filter (where nth = 500)) as since from lately)
  select since, coalesce(sum(s.events), 0)::int as departed,
         coalesce(sum(case when s.recorded_from > since then s.events when s.recorded_to > since then (
           select count(*) from events e where e.lane = s.lane and e.id between s.from_id and s.to_id
              and e.recorded_at > since) end), 0)::int as arrived
    from w left join lately s on s.sent_at > w.since group by since
"""
MAX_COUNTED = 2_000
"""Unsent events of a lane."""
UNSENT = """
  select count(*) filter (where recorded_at > $1) from lanes l cross join lateral (
    select recorded_at from events e where e.lane = l.lane and e.id > l.sent_to order by e.id limit $2) u
"""


async def figures(service: Service, calendar: WorkingCalendar, agency: str | None = None) -> list[StageFigures]:
    """All stages in their order. `relay` and `notify` belong to no agency: they are there when none is asked for."""
    pool, office_now, now = service.pool(), service.office.now(), wall_now()
    since = now - timedelta(seconds=WINDOW_OFFICE_S / service.office.speed)
    stages = (agency, OWN, AWAITS_MACHINE)
    standing = await _standing(service, calendar, agency)
    oldest = await _by_stage(pool, OLDEST, *stages)
    moved = await _by_stage(pool, MOVED, *stages, since)
    waits = await _by_stage(pool, WAITS, *stages)
    found = [
        StageFigures(
            stage=stage,
            arrived=_of(moved, stage, "arrived", 0),
            left=_of(moved, stage, "departed", 0),
            waiting=_of(standing, stage, "standing", 0),
            oldest_seconds=_age(calendar, stage, oldest.get(stage), office_now, now),
            oldest_since=_of(oldest, stage, "entered_office_at", None),
            wait_p50_s=_of(waits, stage, "waits", (None, None))[0],
            wait_p95_s=_of(waits, stage, "waits", (None, None))[1],
            service_p50_s=_of(waits, stage, "services", (None, None))[0],
            service_p95_s=_of(waits, stage, "services", (None, None))[1],
            target_seconds=service.targets[stage],
            counted_s=(now - _of(moved, stage, "since", since)).total_seconds(),
            short_of=_of(oldest, stage, "short_of", None),
        )
        for stage in OWN
    ]
    if agency is None:
        found += [await _relay(service, since), await _notify(service, since)]
    return found


async def _by_stage(pool: Pool, query: str, agency: str | None, *arguments: Any) -> dict[str, Any]:
    # Two texts, two plans: with one text the planner could count on no index for either.
    whose = "$1::text is null" if agency is None else "agency = $1"
    return {row["stage"]: row for row in await pool.fetch(query.format(agency=whose), agency, *arguments)}


async def _standing(service: Service, calendar: WorkingCalendar, agency: str | None) -> dict[str, Any]:
    office_now = service.office.now()
    one_day_on = calendar.add_working_seconds(office_now, 8 * 3600)
    return await _by_stage(service.pool(), STANDING, agency, OWN, AWAITS_MACHINE, office_now, one_day_on)


def _of(rows: Mapping[str, Any], stage: str, name: str, otherwise: Any) -> Any:
    row = rows.get(stage)
    return otherwise if row is None or row[name] is None else row[name]


def _age(calendar: WorkingCalendar, stage: str, oldest: Any | None, office_now: datetime, now: datetime) -> float:
    """Of the oldest: working seconds in human stages, wall seconds in machine stages."""
    if oldest is None:
        return 0.0
    if stage in HUMAN:
        return max(calendar.working_seconds(oldest["entered_office_at"], office_now), 0.0)
    entered_at: datetime = oldest["entered_at"]
    return max((now - entered_at).total_seconds(), 0.0)


async def _relay(service: Service, since: datetime) -> StageFigures:
    """This service's own relay; the others' are in their metrics."""
    pool = service.pool()
    waiting, oldest = await progress.pending(pool)
    sent = await pool.fetchrow(SENT, since)
    assert sent is not None
    arrived = sent["arrived"] + await pool.fetchval(UNSENT, sent["since"], MAX_COUNTED)
    counted_s = (wall_now() - sent["since"]).total_seconds()
    return _machine(service, "relay", arrived, sent["departed"], waiting, oldest, counted_s)


async def _notify(service: Service, since: datetime) -> StageFigures:
    """Notices wanted whose outcome has not come back: the stage as it is felt from here."""
    row = await service.pool().fetchrow(
        "select count(*) as waiting, min(wanted_at) as oldest,"
        " count(*) filter (where wanted_at > $1) as arrived from notices_awaited",
        since,
    )
    assert row is not None
    wanted = service.extras.get("notices_wanted", 0)
    past: deque[tuple[datetime, int, int]] = service.extras.setdefault("notices_past", deque())
    past.append((wall_now(), row["waiting"], wanted))
    while len(past) > 1 and past[1][0] <= since:
        past.popleft()
    _, waited, wanted_then = past[0]
    # What has left is not stored: it is what came, less what the queue has grown by.
    arrived = max(row["arrived"], wanted - wanted_then)
    left = max(arrived - (row["waiting"] - waited), 0)
    oldest = row["oldest"].timestamp() if row["oldest"] else None
    counted_s = WINDOW_OFFICE_S / service.office.speed
    return _machine(service, "notify", arrived, left, row["waiting"], oldest, counted_s)


def _machine(
    service: Service, stage: str, arrived: int, left: int, waiting: int, oldest: float | None, counted_s: float
) -> StageFigures:
    """`oldest`: when it came, in seconds since 1970. `arrived` and `left` were counted over `counted_s` seconds."""
    return StageFigures(
        stage=stage,
        arrived=arrived,
        left=left,
        waiting=waiting,
        oldest_seconds=max(time.time() - oldest, 0.0) if oldest else 0.0,
        oldest_since=service.office.at(oldest) if oldest else None,
        wait_p50_s=None,
        wait_p95_s=None,
        service_p50_s=None,
        service_p95_s=None,
        target_seconds=service.targets[stage],
        counted_s=counted_s,
    )


async def refresh(service: Service) -> None:
    """Set the gauges. A stage that is empty says "now" as its oldest time, so that a dead refresher grows old."""
    calendar: WorkingCalendar = service.extras["calendar"]()
    standing = await _standing(service, calendar, None)
    oldest = await _by_stage(service.pool(), OLDEST, None, OWN, AWAITS_MACHINE)
    office_now, now = service.office.now(), wall_now()
    gauges = service.stages
    for stage in OWN:
        since = _of(oldest, stage, "entered_at", now)
        gauges.oldest_timestamp.labels(stage).set(since.timestamp())
        gauges.oldest.labels(stage).set(_age(calendar, stage, oldest.get(stage), office_now, now))
        gauges.target.labels(stage).set(service.targets[stage])
        gauges.waiting.labels(stage).set(_of(standing, stage, "waiting", 0))
        gauges.in_progress.labels(stage).set(_of(standing, stage, "started", 0))
        gauges.workers.labels(stage).set(_of(standing, stage, "holders", 0))
        gauges.overdue.labels(stage).set(_of(standing, stage, "overdue", 0))
        gauges.due_soon.labels(stage).set(_of(standing, stage, "due_soon", 0))
    await _show_recorded_only(service)
    # Kept as well for the trend of the notices, which needs to know how many waited four hours ago.
    await _notify(service, now - timedelta(seconds=WINDOW_OFFICE_S / service.office.speed))


async def _show_recorded_only(service: Service) -> None:
    gauge: Gauge = service.extras["recorded_only"]
    counted: dict[str, int] = dict.fromkeys(service.extras.setdefault("recorded_only_seen", set()), 0)
    for row in await service.pool().fetch(RECORDED_ONLY, None):
        counted[row["procedure_group"]] = counted.get(row["procedure_group"], 0) + row["waiting"]
    service.extras["recorded_only_seen"] |= counted.keys()
    for group, waiting in counted.items():
        gauge.labels(group).set(waiting)


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["operations"])
    service.extras["recorded_only"] = Gauge(
        "dossier_recorded_only",
        "Recorded and not received, because their procedure receives nothing now",
        ["procedure_group"],
        registry=service.registry,
    )

    @routes.get("/v1/stages")
    async def get_stages(
        _: Annotated[Caller, Depends(allow())], agency: Annotated[str | None, Query(max_length=60)] = None
    ) -> Response:
        """Which stage is the bottleneck, since when and why; and what is recorded and not received, with its reason."""
        rows = await figures(service, service.extras["calendar"](), agency)
        speed = service.office.speed
        shown = verdict(rows, speed=speed)
        recorded = await service.pool().fetch(RECORDED_ONLY, agency)
        reasons = {procedure.code: procedure.record_only_reason for procedure in service.extras["rulebook"].list()}
        shown["recorded_only"] = [{**dict(row), "reason": reasons.get(row["procedure_code"])} for row in recorded]
        return Response(dumps(shown), media_type="application/json")

    return routes
