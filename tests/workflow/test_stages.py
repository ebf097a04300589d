"""The stages' figures as they are read from the tables, for `/v1/stages` and for Prometheus."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

from services.workflow.stages import figures
from services.workflow.tables import TASK_STAGES
from services.workflow.tasks_api import FIRST_PAGE, OF_AGENCY, OF_ALL, OFFICERS
from shared.clock import wall_now
from shared.contract.events import (
    IdCheckAnswered,
    IdNumberDuplicateSuspected,
    IdNumberFound,
    IdNumberRefused,
    NoticeFailed,
    NoticeSent,
)
from shared.contract.stages import HUMAN, STAGES
from shared.outbox import progress
from tests.workflow.conftest import Desk
from tests.workflow.lifecycle_scenes import BIRTH, BUSINESS, COPIES


async def grow_old(desk: Desk, stage: str, seconds: float) -> None:
    """Let the tasks in a stage be so many seconds older."""
    await desk.pool.execute(
        "update tasks set entered_at = entered_at - $2::interval, entered_office_at = entered_office_at - $2::interval"
        " where stage = $1 and state <> 'closed'",
        stage,
        timedelta(seconds=seconds),
    )


async def bottleneck(desk: Desk) -> Any:
    return (await desk.get("/v1/stages"))["bottleneck"]


async def test_an_empty_centre_has_every_stage_and_no_bottleneck(desk: Desk) -> None:
    view = await desk.get("/v1/stages")
    assert [row["stage"] for row in view["stages"]] == list(STAGES)
    assert view["bottleneck"] is None
    assert view["recorded_only"] == []
    now = wall_now().timestamp()
    since = await desk.metric("dossier_stage_oldest_waiting_timestamp_seconds", stage="approval")
    assert since is not None
    assert abs(since - now) < 30, "the oldest time of an empty stage is now, so that a dead refresher shows"


async def test_arrivals_and_departures_are_counted_in_their_stage(desk: Desk) -> None:
    dossier_ids = [await desk.submit(BIRTH) for _ in range(3)]
    await desk.forward(dossier_ids[0], "appraisal")
    rows = await desk.figures()
    assert (rows["appraisal"]["arrived"], rows["appraisal"]["left"], rows["appraisal"]["waiting"]) == (3, 1, 2)
    assert (rows["approval"]["arrived"], rows["approval"]["left"], rows["approval"]["waiting"]) == (1, 0, 1)
    assert rows["approval"]["trend"] == "growing"
    assert (rows["id_number"]["waiting"], rows["identity_check"]["waiting"]) == (3, 3)
    assert (await desk.figures(agency="H44.XXX"))["appraisal"]["waiting"] == 2
    other = await desk.figures(agency="H44.YYY")
    assert all(row["waiting"] == 0 for row in other.values())
    assert "relay" not in other


async def test_started_work_is_in_progress_and_not_waiting(desk: Desk) -> None:
    tasks = [await desk.task_of(await desk.submit(COPIES), "return") for _ in range(3)]
    await desk.call("POST", f"/v1/tasks/{tasks[0]['task_id']}/start", body={"version": 1})
    assert await desk.metric("dossier_stage_waiting", stage="return") == 2
    assert await desk.metric("dossier_stage_in_progress", stage="return") == 1
    assert await desk.metric("dossier_stage_workers", stage="return") == 1
    assert await desk.metric("dossier_due_soon", stage="return") == 3
    desk.set_clock("2025-08-29T09:00:00+07:00")
    assert await desk.metric("dossier_overdue", stage="return") == 3


async def test_each_stay_is_counted_once_and_waits_are_measured(desk: Desk) -> None:
    dossier_id = await desk.submit(COPIES)
    task = await desk.task_of(dossier_id, "return")
    desk.set_clock("2025-08-27T10:00:00+07:00")
    await desk.call("POST", f"/v1/tasks/{task['task_id']}/start", body={"version": 1})
    desk.set_clock("2025-08-27T10:05:00+07:00")
    await desk.forward(dossier_id, "return")
    group = "certification"
    assert await desk.metric("dossier_stage_entered_total", stage="return", procedure_group=group) == 1
    assert await desk.metric("dossier_stage_left_total", stage="return", outcome="hand_over") == 1
    waited = await desk.metric("dossier_stage_wait_seconds_sum", stage="return", procedure_group=group)
    worked = await desk.metric("dossier_stage_service_seconds_sum", stage="return")
    assert waited is not None
    assert worked is not None
    assert (round(waited, -1), round(worked, -1)) == (3600, 300)
    row = (await desk.figures())["return"]
    assert (round(row["wait_p50_s"], -1), round(row["service_p95_s"], -1)) == (3600, 300)


async def test_two_births_stuck_for_two_days_are_named(desk: Desk) -> None:
    for _ in range(2):
        await desk.submit(BIRTH)
    await grow_old(desk, "id_number", 2 * 86_400)
    worst = await bottleneck(desk)
    assert (worst["stage"], worst["why"], worst["trend"]) == ("id_number", "registry", "stuck")
    assert await desk.metric("dossier_stage_oldest_waiting_seconds", stage="id_number") > 2 * 86_400  # type: ignore[operator] # there


async def test_nights_do_not_age_what_waits_for_a_person(desk: Desk) -> None:
    desk.set_clock("2025-08-27T16:30:00+07:00")
    await desk.submit("1.000894")
    desk.set_clock("2025-08-28T07:30:00+07:00")
    row = (await desk.figures())["appraisal"]
    assert 0 < row["oldest_seconds"] <= 2 * 3600


async def test_the_tasks_of_officers_do_not_count_in_the_registrys_stages(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    number, check = (
        await desk.last_event(dossier_id, "IdNumberWanted"),
        await desk.last_event(dossier_id, "IdCheckWanted"),
    )
    await desk.receive(dossier_id, IdNumberRefused(request_key=number["ce_id"], reason="rejected"))
    await desk.receive(dossier_id, IdCheckAnswered(request_key=check["ce_id"], answer="mismatch"))
    for stage in ("id_number", "identity_check"):
        await grow_old(desk, stage, 5 * 86_400)
    rows = await desk.figures()
    assert (rows["id_number"]["waiting"], rows["id_number"]["score"]) == (0, 0)
    assert (rows["identity_check"]["waiting"], rows["identity_check"]["score"]) == (0, 0)
    assert await desk.metric("dossier_stage_waiting", stage="id_number") == 0
    assert rows["id_number"]["wait_p95_s"] < 60
    assert await bottleneck(desk) is None
    await desk.forward(dossier_id, "id_number", "identity_check")
    assert (await desk.figures())["id_number"]["wait_p95_s"] < 60, "an officer's days are not the registry's seconds"


async def test_a_dossier_that_has_two_tasks_in_a_stage_is_one_dossier(desk: Desk) -> None:
    for _ in range(2):
        dossier_id = await desk.submit(BIRTH)
        number = await desk.last_event(dossier_id, "IdNumberWanted")
        await desk.receive(dossier_id, IdNumberDuplicateSuspected(request_key=number["ce_id"]))
    await grow_old(desk, "id_number", 2 * 86_400)
    row = (await desk.figures())["id_number"]
    assert (row["waiting"], row["arrived"]) == (2, 0)
    assert await desk.metric("dossier_stage_waiting", stage="id_number") == 2
    view = await desk.get("/v1/stages")
    assert view["sentence"]["vi"].startswith("Cấp số định danh: 2 hồ sơ")
    desk.set_clock("2025-08-29T09:00:00+07:00")
    assert await desk.metric("dossier_overdue", stage="id_number") == 2


async def test_missing_blanks_are_the_reason_only_while_there_are_none(desk: Desk) -> None:
    await desk.pool.execute("update intake_modes set intake_mode = 'open'")
    dossier_id = await desk.submit(BUSINESS)
    await desk.forward(dossier_id, "appraisal", "approval")
    desk.set_clock("2025-09-10T09:00:00+07:00")
    worst = await bottleneck(desk)
    assert (worst["stage"], worst["why"]) == ("issuing", "blanks:household_business_certificate")
    await desk.put_blanks("household_business_certificate", 1, 10)
    worst = await bottleneck(desk)
    assert (worst["stage"], worst["why"]) == ("issuing", "officer")
    assert (await desk.get("/v1/stages"))["sentence"]["en"].startswith("Issuing: 1 dossier, the oldest for ")


async def test_notices_arrive_leave_and_have_a_trend(desk: Desk) -> None:
    assert (await desk.figures())["notify"]["arrived"] == 0
    dossier_ids = [await desk.submit(BIRTH) for _ in range(3)]
    rows = await desk.figures()
    assert (rows["notify"]["arrived"], rows["notify"]["left"], rows["notify"]["waiting"]) == (3, 0, 3)
    assert rows["notify"]["trend"] == "growing"
    for dossier_id in dossier_ids[:2]:
        wanted = await desk.last_event(dossier_id, "NoticeWanted")
        sent = NoticeSent(notice_id=wanted["ce_id"], kind="received", channel="sms")
        await desk.receive(dossier_id, sent)
        await desk.receive(dossier_id, sent.model_copy(update={"channel": "email"}))
    rows = await desk.figures()
    assert (rows["notify"]["arrived"], rows["notify"]["left"], rows["notify"]["waiting"]) == (3, 2, 1)


async def test_a_notice_whose_first_channel_failed_is_awaited_until_the_next_has_an_outcome(desk: Desk) -> None:
    for outcome in ("sent", "failed"):
        dossier_id = await desk.submit(BIRTH)
        wanted = await desk.last_event(dossier_id, "NoticeWanted")
        failed = NoticeFailed(
            notice_id=wanted["ce_id"], kind="received", channel="sms", reason="no-such-number", next_channel="email"
        )
        await desk.receive(dossier_id, failed)
        assert (await desk.figures())["notify"]["waiting"] == 1
        if outcome == "sent":
            await desk.receive(dossier_id, NoticeSent(notice_id=wanted["ce_id"], kind="received", channel="email"))
        else:
            await desk.receive(dossier_id, failed.model_copy(update={"channel": "email", "next_channel": None}))
        assert (await desk.figures())["notify"]["waiting"] == 0


async def test_arrivals_of_the_relay_are_stored_events_and_departures_are_sent_ones(desk: Desk) -> None:
    before = (await desk.figures())["relay"]
    assert before["left"] == 0
    assert before["arrived"] == before["waiting"] == len(await desk.pool.fetch("select 1 from events"))
    await desk.pool.execute("update events set recorded_at = recorded_at - interval '5 hours'")
    await desk.submit(BIRTH)
    rows = await desk.pool.fetch(
        "select lane, min(id) as first, max(id) as last, count(*)::int, array_agg(recorded_at order by id) as recorded"
        " from events group by lane"
    )
    sent = rows[: len(rows) // 2]
    epochs = await progress.begin_epoch(desk.pool, [row["lane"] for row in sent])
    chunks = [
        progress.Sent(
            row["lane"],
            epochs[row["lane"]].epoch,
            row["first"],
            row["last"],
            (),
            tuple(at.timestamp() for at in row["recorded"]),
            time.time(),
        )
        for row in sent
    ]
    assert not await progress.advance(desk.pool, chunks)
    relay = (await desk.figures())["relay"]
    assert relay["left"] == sum(row["count"] for row in sent)
    assert relay["arrived"] == await desk.pool.fetchval(
        "select count(*) from events where recorded_at > clock_timestamp() - interval '4 hours'"
    )
    assert relay["trend"] == "draining"
    assert relay["waiting"] == sum(row["count"] for row in rows[len(rows) // 2 :])


async def test_a_busy_relay_is_counted_over_the_time_of_its_last_500_batches(desk: Desk) -> None:
    await desk.pool.execute(
        "insert into sent (lane, from_id, to_id, events, recorded_from, recorded_to, sent_at)"
        " select 3, n, n, 2, at, at, at from (select n, clock_timestamp() - make_interval(secs => 700 - n) as at"
        " from generate_series(1, 600) n) s"
    )
    relay = (await desk.figures())["relay"]
    assert relay["left"] == 2 * 499
    # 499 batches, one per second: without the bound in time they would be counted over four hours.
    found = await figures.list_figures(desk.app)
    assert 590 < next(row for row in found if row.stage == "relay").counted_s < 610


async def test_the_gauges_and_the_verdict_say_the_same(desk: Desk) -> None:
    for code in (BIRTH, COPIES, "1.000894"):
        await desk.submit(code)
    desk.set_clock("2025-08-29T15:00:00+07:00")
    rows = await desk.figures()
    for stage in TASK_STAGES:
        oldest = await desk.metric("dossier_stage_oldest_waiting_seconds", stage=stage)
        target = await desk.metric("dossier_stage_target_seconds", stage=stage)
        assert oldest is not None
        assert target is not None
        assert abs(oldest / target - rows[stage]["score"]) < 0.01, stage
    assert max(rows.values(), key=lambda row: row["score"])["stage"] in HUMAN


async def test_a_number_that_came_counts_as_a_wait_for_the_registry(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    wanted = await desk.last_event(dossier_id, "IdNumberWanted")
    await desk.receive(dossier_id, IdNumberFound(request_key=wanted["ce_id"], sealed_number="sealed"))
    row = (await desk.figures())["id_number"]
    assert (row["arrived"], row["left"], row["waiting"]) == (1, 1, 0)
    assert row["wait_p50_s"] is not None


MANY = """
  insert into tasks (task_id, dossier_id, dossier_code, procedure_code, procedure_group, agency, stage, role, version,
                     state, outcomes, due_at, entered_at, entered_office_at, left_at, left_office_at, wait_s, service_s)
  select gen_random_uuid(), gen_random_uuid(), 'c', '1', 'birth', 'A' || (i % 148), stage, role, 1,
         case when i < 24000 then 'open' else 'closed' end, '[]', now() + (i % 1000) * interval '1 hour', now(), now(),
         now() - i * interval '1 second', now(), 5, 6
    from generate_series(1, 27000) i
    join (values (0, 'appraisal', 'specialist'), (1, 'return', 'counter'), (2, 'id_number', null)) r (n, stage, role)
      on r.n = i % 3
"""


async def test_a_work_list_is_read_from_an_index_however_much_is_open(desk: Desk) -> None:
    await desk.pool.execute(MANY)
    await desk.pool.execute("analyze tasks")
    for query, agency in ((OF_ALL, ()), (OF_AGENCY, ("A7",))):
        plan = await explain(desk, query, list(OFFICERS), list(TASK_STAGES), *FIRST_PAGE, 100, *agency)
        touched = [row for row in nodes(plan) if row.get("Relation Name") == "tasks"]
        assert "Seq Scan" not in {row["Node Type"] for row in touched}
        rows = sum((row["Actual Rows"] + row.get("Rows Removed by Filter", 0)) * row["Actual Loops"] for row in touched)
        assert rows < 1_000
        assert plan["Temp Written Blocks"] == 0


async def explain(desk: Desk, query: str, *arguments: Any) -> dict[str, Any]:
    text = await desk.pool.fetchval("explain (analyze, buffers, format json) " + query, *arguments)
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
