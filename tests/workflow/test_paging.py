"""A cursor that no page has given is refused, whatever is in it."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

from tests.workflow.conftest import Desk, problem

ID = str(UUID(int=7))
NO_TASK_CURSORS = [
    ["2025-08-27T09:00:00", ID],
    ["0001-01-01T00:00:00+14:00", ID],
    ["9999-12-31T23:59:59-12:00", ID],
    ["tomorrow", ID],
    [None, "no id"],
    [5, ID],
    [ID],
    {"due": None},
    "text",
]
NO_FEED_CURSORS: list[Any] = [[0] * 11, [0] * 13, [-1] * 12, [True] * 12, [2**63] * 12, [0.5] * 12, 12, None]


def packed(parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


async def test_a_cursor_of_the_work_list_is_a_due_time_and_a_task(desk: Desk) -> None:
    for parts in NO_TASK_CURSORS:
        problem(await desk.call("GET", f"/v1/tasks?after={packed(parts)}"), 400, "bad-cursor")


async def test_a_cursor_of_the_feed_is_one_position_for_each_lane(desk: Desk) -> None:
    for parts in NO_FEED_CURSORS:
        problem(await desk.call("GET", f"/v1/events?after={packed(parts)}", "system"), 400, "bad-cursor")


async def test_a_text_that_is_no_cursor_is_refused_by_every_list(desk: Desk) -> None:
    for address in (
        "/v1/tasks?after=junk",
        "/v1/tasks?after=%C3%A9",
        "/v1/events?after=junk",
        "/v1/procedures?after=9.999999",
        "/v1/blanks?after=junk",
        "/v1/blanks?after=land_certificate",
        "/v1/blanks?after=land_certificate~-1",
        f"/v1/blanks?after=land_certificate~{2**62}",
    ):
        problem(await desk.call("GET", address, "system"), 400, "bad-cursor")
