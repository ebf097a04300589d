"""The public events over HTTP, for systems without Kafka: the same ids, the same order per dossier, replayable.

The cursor holds one position per lane, because order is per dossier, not global: within a lane id order is commit
order, so nothing can appear behind a position that was handed out.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.workflow.app import WorkflowApp
from services.workflow.models import CloudEvent
from shared.contract.envelope import cloud_event
from shared.contract.events import LIFECYCLE, PARTITIONS
from shared.http.access import Caller, allow
from shared.http.body import dumps
from shared.http.cursor import Count, Cursor

LOOK_EVERY_S = 0.2
Positions = tuple[int, ...]
"""Of each lane, the id of its last event that was handed out."""
AFTER: Cursor[Positions] = Cursor(tuple[(Count,) * PARTITIONS])  # type: ignore[arg-type, misc]
START: Positions = (0,) * PARTITIONS
BATCH = "application/cloudevents-batch+json"


async def read(app: WorkflowApp, positions: Positions, limit: int) -> tuple[list[Any], Positions]:
    """Up to `limit` events behind `positions`, oldest first across lanes, and the positions after them."""
    rows = await app.service.pool().fetch(
        """
        select e.* from unnest($1::smallint[], $2::bigint[]) as p (lane, at) cross join lateral (
          select e.lane, e.id, e.dossier_id, e.sequence, e.ce_id, e.type, e.trace_id, e.data, e.recorded_at
            from events e where e.lane = p.lane and e.id > p.at and e.topic = $4::text::topic
           order by e.id limit $3) e
        """,
        list(range(PARTITIONS)),
        list(positions),
        limit,
        LIFECYCLE,
    )
    lanes: dict[int, list[Any]] = {}
    for row in rows:
        lanes.setdefault(row["lane"], []).append(row)
    merged = list(heapq.merge(*lanes.values(), key=lambda row: row["recorded_at"]))[:limit]
    after = list(positions)
    for row in merged:
        after[row["lane"]] = row["id"]
    return merged, tuple(after)


def router(app: WorkflowApp) -> APIRouter:
    routes = APIRouter(tags=["events"])

    @routes.get(
        "/v1/events",
        response_class=Response,
        responses={
            200: {
                "description": "A CloudEvents batch; the next page's address in `Link`, also when it is empty",
                "content": {BATCH: {"schema": {"type": "array", "items": CloudEvent.model_json_schema()}}},
                "headers": {"Link": {"schema": {"type": "string"}, "description": '<address>; rel="next"'}},
            }
        },
    )
    async def list_events(
        request: Request,
        _: Annotated[Caller, Depends(allow())],
        after: Annotated[str | None, Query(max_length=600)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        wait: Annotated[float, Query(ge=0, le=30)] = 0,
    ) -> Response:
        """A CloudEvents batch (a bare array). `Link: <…>; rel="next"` carries the cursor, also when it is empty."""
        positions = AFTER.decode(after) if after else START
        until = time.monotonic() + wait
        rows, positions = await read(app, positions, limit)
        while not rows and time.monotonic() < until and not await request.is_disconnected():
            await asyncio.sleep(LOOK_EVERY_S)
            rows, positions = await read(app, positions, limit)
        events = [
            cloud_event(
                topic=LIFECYCLE,
                subject=str(row["dossier_id"]),
                sequence=row["sequence"],
                ce_id=row["ce_id"],
                type=row["type"],
                trace_id=row["trace_id"],
                recorded_at=row["recorded_at"],
                data=row["data"],
            )
            for row in rows
        ]
        following = f"/v1/events?after={AFTER.encode(positions)}&limit={limit}"
        return Response(dumps(events), media_type=BATCH, headers={"Link": f'<{following}>; rel="next"'})

    return routes
