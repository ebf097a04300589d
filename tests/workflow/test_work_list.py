"""The officers' work list over HTTP: what is on it, in which order, and how a task ends once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from shared.contract.events import IDNUMBER_REQUESTS, IdNumberFound, SupplementSubmitted, WithdrawalRequested
from tests.workflow.conftest import Desk, problem
from tests.workflow.lifecycle_scenes import BIRTH, BUSINESS, COPIES

MARRIAGE = "1.000894"


async def test_what_is_filed_at_the_counter_is_on_the_specialists_list_at_once(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    [task] = await desk.tasks("role=specialist")
    assert task["dossier_id"] == str(dossier_id)
    assert task["dossier_code"] == "H44.XXX-250827-0001"
    assert (task["stage"], task["role"], task["version"]) == ("appraisal", "specialist", 1)
    assert [row["code"] for row in task["outcomes"] if row["forward"]] == ["agree"]
    assert await desk.event_types(dossier_id) == [
        "DossierRecorded",
        "DossierReceived",
        "IdNumberRequested",
        "StepStarted",
    ]
    assert await desk.tasks("role=counter") == []
    assert await desk.tasks("role=nobody") == []


async def test_the_soonest_due_comes_first_and_every_task_is_met_once_while_paging(desk: Desk) -> None:
    for office, procedure in (("2025-08-27T16:00:00", BIRTH), ("2025-08-25T09:00:00", MARRIAGE)) * 3:
        desk.set_clock(f"{office}+07:00")
        await desk.submit(procedure)
        await desk.submit(procedure, channel="online", caller_role="system")
        await desk.submit(COPIES)
    whole = await desk.tasks("limit=1000")
    assert [task["due_at"] for task in whole] == sorted(task["due_at"] for task in whole)
    assert len(whole) == 18
    for query in ("", "role=counter", "role=specialist&stage=appraisal", "agency=H44.XXX"):
        wanted = await desk.tasks(f"{query}&limit=1000")
        seen: list[str] = []
        after = ""
        while after is not None:
            page = await desk.get(f"/v1/tasks?{query}&limit=2{after}")
            seen += [task["task_id"] for task in page["items"]]
            assert len(seen) <= len(wanted), "the pages come to an end"
            after = f"&after={page['next']}" if page["next"] else None
        assert seen == [task["task_id"] for task in wanted]
        assert seen


async def test_a_task_without_a_due_time_stands_last_and_can_be_paged_past(desk: Desk) -> None:
    for _ in range(3):
        await desk.submit(COPIES)
    await desk.pool.execute(
        "update tasks set due_at = null where task_id = (select task_id from tasks order by task_id limit 1)"
    )
    [first, _, last] = await desk.tasks()
    assert first["due_at"]
    assert last["due_at"] is None
    page = await desk.get("/v1/tasks?limit=2")
    rest = await desk.get(f"/v1/tasks?limit=1&after={page['next']}")
    assert [task["task_id"] for task in rest["items"]] == [last["task_id"]]
    assert (await desk.get(f"/v1/tasks?after={rest['next']}"))["items"] == []


async def test_one_agencys_list_shows_nothing_of_another(desk: Desk) -> None:
    await desk.submit(BIRTH)
    there = await desk.submit(BIRTH, receiving_agency="H44.YYY")
    assert [task["dossier_id"] for task in await desk.tasks("agency=H44.YYY")] == [str(there)]
    assert len(await desk.tasks("role=specialist")) == 2
    assert await desk.tasks("agency=H44.ZZZ") == []


async def test_a_task_is_completed_once(desk: Desk) -> None:
    dossier_id = await desk.submit(COPIES)
    task = await desk.task_of(dossier_id, "return")
    answer = await desk.complete(task)
    assert answer.status_code == 200
    assert answer.json()["national_status"] == 10
    types = await desk.event_types(dossier_id)
    assert types[-3:] == ["ResultSigned", "DossierResolved", "ResultReturned"]
    problem(await desk.complete(task), 409, "stale-version")
    problem(await desk.complete({**task, "version": answer.json()["version"]}), 409, "task-already-completed")
    assert await desk.event_types(dossier_id) == types
    assert await desk.tasks() == []


async def test_who_completed_a_task_is_stored_with_it_and_never_published(desk: Desk) -> None:
    named, unnamed, withdrawn = [await desk.submit(COPIES) for _ in range(3)]
    await desk.complete(await desk.task_of(named, "return"), officer="UTF-8''Nguy%E1%BB%85n%20Lan")
    await desk.complete(await desk.task_of(unnamed, "return"))
    await desk.receive(withdrawn, WithdrawalRequested(office_at=desk.service.office.now(), sealed_reason="x"))
    rows = await desk.pool.fetch("select dossier_id, completed_by from tasks where state = 'closed'")
    by = {row["dossier_id"]: row["completed_by"] for row in rows}
    assert (by[named], by[unnamed], by[withdrawn]) == ("Nguyễn Lan", "counter", None)
    for row in await desk.pool.fetch("select data from events where dossier_id = $1", named):
        assert "Lan" not in row["data"].decode()


async def test_another_role_may_look_but_not_complete(desk: Desk) -> None:
    task = await desk.task_of(await desk.submit(COPIES), "return")
    for role in ("specialist", "signatory", "records_clerk", "centre_director", "ops", "system"):
        problem(await desk.complete(task, role=role), 403, "wrong-role")
    assert (await desk.complete(task)).status_code == 200


async def test_a_stale_version_is_refused_and_nothing_is_stored(desk: Desk) -> None:
    dossier_id = await desk.submit(COPIES)
    task = await desk.task_of(dossier_id, "return")
    path = f"/v1/tasks/{task['task_id']}/start"
    started = await desk.call("POST", path, body={"version": 1})
    assert started.json()["version"] == 2
    problem(await desk.complete(task), 409, "stale-version")
    problem(await desk.call("POST", path, body={"version": 1}), 409, "stale-version")
    problem(await desk.call("POST", path, body={"version": 2}, x_officer="another"), 409, "held-by-another")
    [now] = await desk.tasks()
    assert (now["version"], now["state"], now["holder"]) == (2, "started", "counter")
    assert (await desk.complete(now)).status_code == 200


async def test_of_two_officers_at_once_one_wins_and_the_other_is_told(desk: Desk) -> None:
    for _ in range(5):
        dossier_id = await desk.submit(COPIES)
        task = await desk.task_of(dossier_id, "return")
        answers = await asyncio.gather(*(desk.complete(task, officer=f"officer {n}") for n in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"stale-version"}
        assert (await desk.event_types(dossier_id)).count("ResultReturned") == 1


async def test_many_are_completed_each_by_itself(desk: Desk) -> None:
    tasks = [await desk.task_of(await desk.submit(COPIES), "return") for _ in range(3)]
    other = await desk.task_of(await desk.submit(BIRTH), "appraisal")
    items = [{"task_id": task["task_id"], "outcome": "hand_over", "version": 1} for task in [*tasks, other, tasks[0]]]
    items[1]["version"] = 7
    items.append({"task_id": str(uuid4()), "outcome": "hand_over", "version": 1})
    items.append({**items[1], "version": 1, "outcome": "refuse"})
    answer = await desk.call("POST", "/v1/tasks/complete", body={"items": items})
    assert answer.status_code == 200
    assert [(row["status"], row.get("code")) for row in answer.json()["items"]] == [
        (200, None),
        (409, "stale-version"),
        (200, None),
        (403, "wrong-role"),
        (409, "stale-version"),
        (404, "unknown-task"),
        (422, "note-required"),
    ]
    assert [row["task_id"] for row in answer.json()["items"]] == [item["task_id"] for item in items]
    assert len(await desk.tasks()) == 2


async def test_issuing_waits_visibly_until_blanks_come(desk: Desk) -> None:
    await desk.set_mode(BUSINESS, "open")
    await desk.pool.execute("update intake_modes set intake_mode = 'open'")
    dossier_id = await desk.submit(BUSINESS)
    await desk.forward(dossier_id, "appraisal", "approval")
    task = await desk.task_of(dossier_id, "issuing")
    assert task["waiting_for"] == "blanks:household_business_certificate"
    problem(await desk.complete(task), 409, "no-blank")
    assert (await desk.put_blanks("household_business_certificate", 500, 500)).status_code == 200
    there = await desk.task_of(dossier_id, "issuing")
    assert there == {**task, "waiting_for": None}
    await desk.forward(dossier_id, "issuing", "return")
    shown = await desk.get(f"/v1/dossiers/{dossier_id}")
    assert shown["result"]["blank"] == 500
    assert shown["national_status"] == 10
    box = (await desk.get("/v1/blanks"))["items"][0]
    assert (box["used"], box["left"]) == (1, 0)


async def test_of_two_who_want_the_last_blank_one_gets_it(desk: Desk) -> None:
    await desk.pool.execute("update intake_modes set intake_mode = 'open'")
    await desk.put_blanks("household_business_certificate", 1, 1)
    tasks = []
    for _ in range(3):
        dossier_id = await desk.submit(BUSINESS)
        await desk.forward(dossier_id, "appraisal", "approval")
        tasks.append(await desk.task_of(dossier_id, "issuing"))
    answers = await asyncio.gather(*(desk.complete(task) for task in tasks))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]


async def test_a_withdrawal_that_came_first_leaves_the_officer_a_conflict(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    task = await desk.task_of(dossier_id, "appraisal")
    await desk.receive(dossier_id, WithdrawalRequested(office_at=desk.service.office.now(), sealed_reason="x"))
    problem(await desk.complete(task), 409, "stale-version")
    assert (
        await desk.event_types(dossier_id, IDNUMBER_REQUESTS) == ["IdNumberWanted", "IdNumberNoLongerWanted"]
        or (await desk.event_types(dossier_id, IDNUMBER_REQUESTS))[-1] == "IdNumberNoLongerWanted"
    )


async def test_a_withdrawal_and_a_completion_at_once_agree_on_who_was_first(desk: Desk) -> None:
    for _ in range(4):
        dossier_id = await desk.submit(COPIES)
        task = await desk.task_of(dossier_id, "return")
        fact = WithdrawalRequested(office_at=desk.service.office.now(), sealed_reason="x")
        answer, _none = await asyncio.gather(desk.complete(task), desk.receive(dossier_id, fact))
        types = await desk.event_types(dossier_id)
        if answer.status_code == 200:
            assert types[-2:] == ["ResultReturned", "RequestDeclined"]
        else:
            problem(answer, 409, "stale-version")
            assert types[-1] == "DossierWithdrawn"


async def test_at_the_hour_of_the_number_the_signatory_gets_a_task(desk: Desk) -> None:
    from services.workflow.timers import _fire_batch

    dossier_id = await desk.submit(BIRTH, has_personal_id=False)
    await desk.forward(dossier_id, "appraisal", "approval", "issuing")
    assert await desk.tasks() == []
    assert await _fire_batch(desk.app) == 0
    desk.set_clock("2025-08-27T16:31:00+07:00")
    assert await _fire_batch(desk.app) == 1
    held = await desk.task_of(dossier_id, "id_number")
    assert held["role"] == "signatory"
    assert (await desk.complete(held, "wait")).status_code == 200
    assert await _fire_batch(desk.app) == 0
    desk.set_clock("2025-08-28T16:31:00+07:00")
    assert await _fire_batch(desk.app) == 1
    await desk.forward(dossier_id, "id_number", "return")
    assert await desk.pool.fetchval("select count(*) from timers") == 0
    wanted = await desk.last_event(dossier_id, "IdNumberWanted")
    await desk.receive(dossier_id, IdNumberFound(request_key=wanted["ce_id"], sealed_number="sealed"))
    late = await desk.task_of(dossier_id, "id_number")
    assert late["role"] == "records_clerk"
    assert (await desk.complete(late)).status_code == 200
    assert (await desk.event_types(dossier_id))[-2:] == ["ResultReturned", "IdNumberIssued"]
    assert (await desk.get(f"/v1/dossiers/{dossier_id}"))["national_status"] == 10


async def test_a_supplement_is_asked_for_and_comes(desk: Desk) -> None:
    dossier_id = await desk.submit(BIRTH)
    task = await desk.task_of(dossier_id, "appraisal")
    asked = {"note": "thiếu giấy chứng sinh", "fields": {"components": ["birth_notification"]}}
    assert (await desk.complete(task, "ask_supplement", **asked)).json()["national_status"] == 5
    assert (await desk.last_event(dossier_id, "SupplementRequested"))["components"] == ["birth_notification"]
    await desk.receive(dossier_id, SupplementSubmitted(office_at=desk.service.office.now(), components=()))
    again = await desk.task_of(dossier_id, "appraisal")
    assert again["task_id"] != task["task_id"]
    problem(await desk.complete(again, "ask_supplement", note="nữa"), 409, "supplement-already-asked")


BODIES: list[tuple[Any, int, str]] = [
    ({}, 422, "invalid"),
    ({"outcome": "hand_over"}, 422, "invalid"),
    ({"outcome": "hand_over", "version": "1"}, 422, "invalid"),
    ({"outcome": "hand_over", "version": True}, 422, "invalid"),
    ({"outcome": "hand_over", "version": 2**40}, 422, "invalid"),
    ({"outcome": 5, "version": 1}, 422, "invalid"),
    ({"outcome": "hand_over", "version": 1, "fields": []}, 422, "invalid"),
    ({"outcome": "hand_over", "version": 1, "note": "x" * 2001}, 422, "invalid"),
    ({"outcome": "hand_over", "version": 1, "more": 1}, 422, "invalid"),
    ({"outcome": "fly", "version": 1}, 422, "unknown-outcome"),
    ({"outcome": "refuse", "version": 1}, 422, "note-required"),
    ({"outcome": "refuse", "version": 1, "note": "  "}, 422, "note-required"),
    ({"outcome": "hand_over", "version": 1, "fields": {"colour": 1}}, 422, "unknown-field"),
    ({"outcome": "hand_over", "version": 1, "fields": {"signed_as": "me"}}, 422, "bad-field"),
    ({"outcome": "hand_over", "version": 1, "fields": {"signed_by": 5}}, 422, "bad-field"),
    ({"outcome": "hand_over", "version": 1, "fields": {"signed_by": "A" * 121}}, 422, "bad-field"),
    ({"outcome": "refuse", "version": 1, "note": "a\x00b"}, 400, "nul"),
    ([], 400, "not-an-object"),
]


async def test_a_completion_that_says_too_little_or_too_much_changes_nothing(
    desk: Desk,
) -> None:
    dossier_id = await desk.submit(COPIES)
    task = await desk.task_of(dossier_id, "return")
    for body, status, code in BODIES:
        problem(await desk.call("POST", f"/v1/tasks/{task['task_id']}/complete", body=body), status, code)
    refusal = problem(await desk.call("POST", f"/v1/tasks/{task['task_id']}/complete", body={}), 422, "invalid")
    assert {row["field"] for row in refusal["errors"]} == {"outcome", "version"}, "every defect is named at once"
    assert all(row.keys() == {"field", "code", "vi", "en"} for row in refusal["errors"])
    done = {"task_id": task["task_id"], "outcome": "hand_over", "version": 1}
    problem(await desk.call("POST", "/v1/tasks/complete", body={"items": [done], "more": 1}), 422, "invalid")
    problem(
        await desk.call("POST", f"/v1/tasks/{task['task_id']}/start", body={"version": 1, "more": 1}), 422, "invalid"
    )
    assert await desk.task_of(dossier_id, "return") == task


ADDRESSES = [
    ("/v1/tasks?after=nonsense", 400, "bad-cursor"),
    ("/v1/tasks?after=W251bGwsIDVd", 400, "bad-cursor"),  # [null, 5]
    ("/v1/tasks?after=WyIyMDI1LTAxLTAxIiwgIjAiXQ", 400, "bad-cursor"),  # a day without a zone
    ("/v1/tasks?after=%C3%A9", 400, "bad-cursor"),
    ("/v1/tasks?role=a%00b", 400, "nul"),
    ("/v1/tasks?agency=%00", 400, "nul"),
    ("/v1/stages?agency=%00", 400, "nul"),
    ("/v1/track/a%00b?secret=x", 400, "nul"),
    ("/v1/tasks?limit=0", 422, "invalid"),
    ("/v1/tasks?limit=1001", 422, "invalid"),
    ("/v1/tasks?limit=many", 422, "invalid"),
    ("/v1/dossiers/not-a-uuid", 422, "invalid"),
    ("/v1/events?after=e30", 400, "bad-cursor"),
    ("/v1/events?wait=nan", 422, "invalid"),
    ("/v1/events?wait=31", 422, "invalid"),
    ("/v1/procedures?after=junk", 400, "bad-cursor"),
    ("/v1/blanks?after=junk", 400, "bad-cursor"),
    ("/v1/blanks?after=land~99999999999999999999", 400, "bad-cursor"),
    ("/v1/blanks?limit=0", 422, "invalid"),
    ("/v1/procedures/9.999999", 404, "unknown-procedure"),
    ("/v1/nothing", 404, "not-found"),
]


async def test_a_bad_address_is_a_problem_in_both_languages(desk: Desk) -> None:
    for path, status, code in ADDRESSES:
        problem(await desk.call("GET", path), status, code)


async def test_without_a_token_nobody_sees_anything(desk: Desk) -> None:
    for path in ("/v1/tasks", f"/v1/dossiers/{uuid4()}", "/v1/procedures", "/v1/stages", "/v1/events", "/v1/blanks"):
        problem(await desk.http.get(path), 401, "unauthorized")
        problem(await desk.http.get(path, headers={"Authorization": "Bearer wrong"}), 401, "unauthorized")


async def test_an_unknown_task_is_not_found(desk: Desk) -> None:
    body = {"outcome": "hand_over", "version": 1}
    problem(await desk.call("POST", f"/v1/tasks/{uuid4()}/complete", body=body), 404, "unknown-task")
    dossier_id = await desk.submit(BIRTH)
    awaited = await desk.pool.fetchval("select task_id from tasks where dossier_id = $1 and role is null", dossier_id)
    problem(await desk.call("POST", f"/v1/tasks/{awaited}/complete", body=body), 404, "unknown-task")
