"""One dossier whose decision raises does not hold up the others of its batch: of timers, and of an opened procedure."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from services.workflow import lifecycle, opening, timers
from services.workflow.lifecycle import Decision, Dossier
from services.workflow.stuck import StuckDossiers
from shared.contract.envelope import new_id
from tests.workflow.conftest import Desk
from tests.workflow.lifecycle_scenes import BUSINESS
from tests.workflow.test_rules_api import recorded


def raise_for(monkeypatch: Any, name: str, bad: UUID) -> None:
    """Give the rule `name` a defect that shows at one dossier."""
    rule = getattr(lifecycle, name)

    def broken(dossier: Dossier, *rest: Any) -> Decision:
        if dossier.dossier_id == bad:
            raise KeyError("a defect")
        decision: Decision = rule(dossier, *rest)
        return decision

    monkeypatch.setattr(lifecycle, name, broken)


async def test_a_queue_is_received_except_the_dossier_that_raises_and_the_procedure_stays_opening(
    desk: Desk, monkeypatch: Any
) -> None:
    queue = await recorded(desk, 5)
    with monkeypatch.context() as defect:
        raise_for(defect, "opened", queue[1])
        await desk.set_mode(BUSINESS, "open")
        while await opening._receive_batch(desk.app, BUSINESS):
            pass
        states = [(await desk.get(f"/v1/dossiers/{dossier_id}"))["state"] for dossier_id in queue]
        assert states == ["in_progress", "recorded", "in_progress", "in_progress", "in_progress"]
        assert await desk.pool.fetchval("select intake_mode from intake_modes where code = $1", BUSINESS) == "opening"
    # A minute later, with the defect repaired.
    desk.app.stuck = StuckDossiers()
    while await opening._receive_batch(desk.app, BUSINESS):
        pass
    assert (await desk.get(f"/v1/dossiers/{queue[1]}"))["state"] == "in_progress"
    assert await desk.pool.fetchval("select intake_mode from intake_modes where code = $1", BUSINESS) == "open"


async def test_timers_of_other_dossiers_fire_although_one_raises(desk: Desk, monkeypatch: Any) -> None:
    dossiers = [await desk.submit(BUSINESS) for _ in range(4)]
    await desk.pool.executemany(
        "insert into timers (dossier_id, kind, due_at) values ($1, 'number_hold', '2025-08-27 08:00:00+07')",
        [(dossier_id,) for dossier_id in dossiers],
    )
    raise_for(monkeypatch, "hold_over", dossiers[0])
    assert await timers._fire_batch(desk.app) == 4
    assert await desk.pool.fetchval("select array_agg(dossier_id) from timers") == [dossiers[0]]
    assert await timers._fire_batch(desk.app) == 0, "it is skipped for a while"


async def test_a_dossier_that_raises_is_tried_again_later_and_a_transient_error_makes_nobody_stuck() -> None:
    rows = [{"dossier_id": new_id()} for _ in range(3)]
    done: list[UUID] = []

    async def run(part: Any) -> None:
        if rows[1] in part:
            raise KeyError("a defect")
        done.extend(row["dossier_id"] for row in part)

    stuck = StuckDossiers()
    await stuck.run_each_alone_on_failure(rows, run)
    assert done == [rows[0]["dossier_id"], rows[2]["dossier_id"]]
    assert stuck.ids() == [rows[1]["dossier_id"]]
    short = StuckDossiers(retry_after_s=0.0)
    await short.run_each_alone_on_failure(rows, run)
    assert short.ids() == []

    async def down(_: Any) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await short.run_each_alone_on_failure(rows, down)
