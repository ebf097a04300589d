"""The stages' gauges for Prometheus, set every few seconds and never inside a scrape."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from services.workflow.app import WorkflowApp
from services.workflow.stages import queries
from services.workflow.stages.figures import (
    WINDOW_OFFICE_S,
    age_of,
    count_open_tasks,
    fetch_by_stage,
    notify_figures,
    value_of,
)
from services.workflow.tables import TASK_STAGES
from shared.clock import wall_now


async def refresh(app: WorkflowApp) -> None:
    """Set the gauges. The oldest time of an empty stage is now, so that a dead refresher shows as a growing age."""
    pool, calendar, gauges = app.service.pool(), app.catalogue.calendar(), app.delivery.stages
    counts = await count_open_tasks(app, None)
    oldest = await fetch_by_stage(pool, queries.OLDEST, None, TASK_STAGES, queries.IS_MACHINE)
    office_now, now = app.service.office.now(), wall_now()
    for stage in TASK_STAGES:
        since = value_of(oldest, stage, "entered_at", now)
        gauges.oldest_timestamp.labels(stage).set(since.timestamp())
        gauges.oldest.labels(stage).set(age_of(calendar, stage, oldest.get(stage), office_now, now))
        gauges.target.labels(stage).set(app.delivery.targets[stage])
        gauges.waiting.labels(stage).set(value_of(counts, stage, "waiting", 0))
        gauges.in_progress.labels(stage).set(value_of(counts, stage, "started", 0))
        gauges.workers.labels(stage).set(value_of(counts, stage, "holders", 0))
        gauges.overdue.labels(stage).set(value_of(counts, stage, "overdue", 0))
        gauges.due_soon.labels(stage).set(value_of(counts, stage, "due_soon", 0))
    recorded: Counter[str] = Counter()
    for row in await pool.fetch(queries.RECORDED_ONLY, None):
        recorded[row["procedure_group"]] += row["waiting"]
    app.metrics.show_recorded_only(recorded)
    # Counted here as well, because the trend of the notices needs to know how many were waiting four hours ago.
    await notify_figures(app, now - timedelta(seconds=WINDOW_OFFICE_S / app.service.office.speed))
