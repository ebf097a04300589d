"""The public events over HTTP, for systems without Kafka: the same ids, the same order per dossier, replayable.

The cursor holds one position per lane, because order holds per dossier and not between dossiers. Within a lane the
order of ids is the order of commits, so no event can appear behind a position that was handed out.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.workflow.app import WorkflowApp
from shared.contract.envelope import cloud_event
from shared.contract.events import LIFECYCLE, PARTITIONS
from shared.http.access import Caller, allow
from shared.http.body import dumps
from shared.http.cursor import Count, Cursor
from shared.http.models import HttpModel
from shared.http.openapi import describe
from shared.http.problems import malformed

POLL_EVERY_S = 0.2
Positions = tuple[int, ...]
"""For each lane, the id of the last event that was handed out."""
AFTER: Cursor[Positions] = Cursor(tuple[(Count,) * PARTITIONS])  # type: ignore[arg-type, misc]
START: Positions = (0,) * PARTITIONS
BATCH = "application/cloudevents-batch+json"
FILTERS = {"types", "agency"}
"""Names that are kept for filters. They are refused: a reader that filters must not take every event for its own."""


class CloudEvent(HttpModel):
    """A public event in CloudEvents' JSON format: the same id, source, type, time and sequence as on Kafka."""

    specversion: Literal["1.0"]
    id: UUID
    """The same on every channel and at every repetition."""
    source: str
    type: str
    """E.g. `vn.hoso.DossierReceived.v1` (docs/events.md)."""
    subject: UUID
    """The dossier's id."""
    time: str
    """When the event was stored, in wall time (UTC, as in CloudEvents' `time` on Kafka)."""
    sequence: str
    """The event's position in its dossier's events: from 1, without gaps, ten digits."""
    datacontenttype: Literal["application/json"]
    traceparent: str
    """W3C trace context."""
    data: dict[str, Any]
    """The event's fields (docs/events.md); `office_at` is office time."""


class FeedPage(NamedTuple):
    """Rows of `events`, and the positions after them."""

    rows: list[Any]
    positions: Positions


async def read(app: WorkflowApp, positions: Positions, limit: int) -> FeedPage:
    """Up to `limit` events behind `positions`, oldest first across lanes."""
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
    return FeedPage(merged, tuple(after))


def router(app: WorkflowApp) -> APIRouter:
    routes = APIRouter(tags=["events"])

    @routes.get(
        "/v1/events",
        response_class=Response,
        responses={
            200: {
                "description": "A CloudEvents batch; the next page's address in `Link`, also when the page is empty",
                "content": {BATCH: {"schema": {"type": "array", "items": CloudEvent.model_json_schema()}}},
                "headers": {"Link": {"schema": {"type": "string"}, "description": '<address>; rel="next"'}},
            }
        },
        openapi_extra=describe(problems={400: ["unknown-parameter"]}),
    )
    async def list_events(
        request: Request,
        _: Annotated[Caller, Depends(allow())],
        after: Annotated[
            str | None, Query(max_length=600, description="The cursor; without it from the oldest event on")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="Events per page")] = 100,
        wait: Annotated[
            float, Query(ge=0, le=30, description="Seconds that an empty page is held back until there is an event")
        ] = 0,
    ) -> Response:
        """A CloudEvents batch (a bare array). `Link: <…>; rel="next"` carries the cursor, also when the page is empty.

        There are no filters: `types` and `agency` are refused (400 `unknown-parameter`). See docs/feed.md.
        """
        _refuse_filters(request)
        positions = AFTER.decode(after) if after else START
        deadline = time.monotonic() + wait
        page = await read(app, positions, limit)
        while not page.rows and time.monotonic() < deadline and not await request.is_disconnected():
            await asyncio.sleep(POLL_EVERY_S)
            page = await read(app, page.positions, limit)
        following = f"/v1/events?after={AFTER.encode(page.positions)}&limit={limit}"
        events = [_cloud_event(row) for row in page.rows]
        return Response(dumps(events), media_type=BATCH, headers={"Link": f'<{following}>; rel="next"'})

    return routes


def _refuse_filters(request: Request) -> None:
    if FILTERS & request.query_params.keys():
        raise malformed(
            "unknown-parameter",
            "Chưa hỗ trợ lọc theo `types` hoặc `agency`.",
            "There are no filters by `types` or `agency`.",
        )


def _cloud_event(row: Any) -> dict[str, Any]:
    return cloud_event(
        topic=LIFECYCLE,
        subject=str(row["dossier_id"]),
        sequence=row["sequence"],
        ce_id=row["ce_id"],
        type=row["type"],
        trace_id=row["trace_id"],
        recorded_at=row["recorded_at"],
        data=row["data"],
    )
