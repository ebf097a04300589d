"""The rules over HTTP: procedures and their versions, opening a closed one, the calendar, blanks, due dates."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from services.workflow import handlers, opening, store
from services.workflow.procedures import shipped
from services.workflow.publishing import publish_due_versions
from services.workflow.store import Needs
from shared.contract.envelope import parse
from shared.contract.events import WithdrawalRequested
from shared.postgres.writes import Writes
from tests.fixtures.publishing import publish
from tests.fixtures.waiting import wait_until
from tests.workflow.conftest import Desk, problem
from tests.workflow.lifecycle_scenes import BIRTH, BUSINESS, COPIES


async def put(desk: Desk, document: dict[str, Any], role: str = "centre_director") -> Any:
    return await desk.call("PUT", f"/v1/procedures/{document['code']}", role, document)


async def published(desk: Desk, code: str) -> list[int]:
    rows = await desk.pool.fetch("select sequence from events where key = $1 order by id", code)
    return [row["sequence"] for row in rows]


async def test_every_shipped_procedure_is_listed_by_code_with_its_example(desk: Desk) -> None:
    listed = await desk.get("/v1/procedures?limit=1000")
    assert [row["code"] for row in listed["items"]] == sorted(shipped())
    assert listed["next"] is None
    for row in listed["items"]:
        assert row["example"]["procedure_code"] == row["code"]
        assert {"version", "names", "intake_mode", "components", "subject_schema"} <= row.keys()
    page = await desk.get("/v1/procedures?limit=7")
    rest = await desk.get(f"/v1/procedures?limit=1000&after={page['next']}")
    assert page["items"] + rest["items"] == listed["items"]


async def test_only_a_changed_rule_makes_the_next_version(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{COPIES}")
    assert (await put(desk, document)).json() == document
    assert await published(desk, COPIES) == [1]
    changed = {**document, "fee": {**document["fee"], "per_case": 5_000}}
    assert (await put(desk, changed)).json()["version"] == 2
    assert (await desk.get(f"/v1/procedures/{COPIES}"))["fee"]["per_case"] == 5_000
    closed = {**changed, "intake_mode": "record_only", "record_only_reason": "hết phôi"}
    assert (await put(desk, closed)).json()["version"] == 2
    assert await published(desk, COPIES) == [1, 2]
    assert (await desk.get(f"/v1/procedures/{COPIES}"))["intake_mode"] == "record_only"


async def test_of_many_who_change_a_rule_at_once_each_makes_one_version(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{COPIES}")
    answers = await asyncio.gather(
        *(put(desk, {**document, "fee": {**document["fee"], "per_case": 1_000 * n}}) for n in range(1, 7))
    )
    assert [answer.status_code for answer in answers] == [200] * 6
    assert await published(desk, COPIES) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_dossier_keeps_the_version_in_force_when_it_was_received(desk: Desk) -> None:
    before = await desk.submit(COPIES, copies=1)
    waiting = await desk.submit(COPIES, copies=1, channel="post", caller_role="system")
    document = await desk.get(f"/v1/procedures/{COPIES}")
    await put(desk, {**document, "fee": {"per_case": 7_000}})
    assert (await desk.get(f"/v1/dossiers/{before}"))["procedure_version"] == 1
    await desk.forward(waiting, "reception")
    shown = await desk.get(f"/v1/dossiers/{waiting}")
    assert (shown["procedure_version"], shown["fee"]) == (2, 7_000)
    await desk.forward(before, "return")
    assert (await desk.last_event(before, "ResultReturned"))["procedure_version"] == 1


async def test_a_version_with_a_later_first_day_waits_for_it_and_is_told_again_then(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{COPIES}")
    coming = {**document, "valid_from": "2025-09-01", "fee": {"per_case": 7_000}}
    assert (await put(desk, coming)).json()["version"] == 2
    assert (await put(desk, coming)).json()["version"] == 2, "put twice, it is no third version"
    assert await desk.get(f"/v1/procedures/{COPIES}") == document
    assert (await put(desk, document)).json() == document, (
        "putting the version in force back does not cancel the coming one"
    )
    assert await published(desk, COPIES) == [1, 2, 1], "the last record must be the version in force"
    today = await desk.submit(COPIES, copies=1)
    waiting = await desk.submit(COPIES, copies=1, channel="post", caller_role="system")
    assert (await desk.get(f"/v1/dossiers/{today}"))["procedure_version"] == 1
    await publish_due_versions(desk.app)
    assert await published(desk, COPIES) == [1, 2, 1]
    desk.set_clock("2025-09-01T00:00:01+07:00")
    await publish_due_versions(desk.app)
    await publish_due_versions(desk.app)
    assert await published(desk, COPIES) == [1, 2, 1, 2]
    assert (await desk.get(f"/v1/procedures/{COPIES}"))["fee"]["per_case"] == 7_000
    await desk.forward(waiting, "reception")
    shown = await desk.get(f"/v1/dossiers/{waiting}")
    assert (shown["procedure_version"], shown["fee"]) == (2, 7_000)


async def test_what_was_filed_before_a_versions_first_day_and_read_on_it_keeps_the_rules_of_its_day(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{COPIES}")
    await put(desk, {**document, "valid_from": "2025-08-28"})
    filed_at = desk.service.office.now()
    desk.set_clock("2025-08-28T00:00:01+07:00")
    late = await desk.submit(COPIES, office_at=filed_at)
    assert (await desk.get(f"/v1/dossiers/{late}"))["procedure_version"] == 1


async def test_a_procedure_closed_by_its_last_day_stays_closed(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{COPIES}")
    await put(desk, {**document, "valid_to": "2025-08-31"})
    desk.set_clock("2025-09-01T09:00:00+07:00")
    await publish_due_versions(desk.app)
    assert (await desk.get(f"/v1/procedures/{COPIES}"))["valid_to"] == "2025-08-31"
    assert await published(desk, COPIES) == [1, 2]


async def test_only_the_director_and_operations_change_rules(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{COPIES}")
    calendar = await desk.get("/v1/calendar")
    for role in ("counter", "specialist", "signatory", "records_clerk", "system"):
        problem(await put(desk, document, role), 403, "wrong-role")
        problem(await desk.call("PUT", "/v1/calendar", role, calendar), 403, "wrong-role")


async def test_a_procedure_that_cannot_work_is_refused_and_nothing_stored(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{BIRTH}")
    step = document["steps"][0]
    for wrong in (
        {"subject_schema": {"$ref": "#/$defs/nowhere"}},
        {"subject_schema": {"properties": {"optional": {"$ref": "#/$defs/nowhere"}}}},
        {"subject_schema": {"$ref": "#"}},
        {"subject_schema": {"properties": {"a": {"pattern": "("}}}},
        {"example": {"procedure_code": BIRTH, "subject": {}, "components": 5}},
        {"steps": [{**step, "stage": "id_number"}, {**step, "stage": "return"}]},
        {"steps": [{**step, "stage": "reception"}, {**step, "stage": "return"}]},
        {"steps": [{**step, "working_hours": 1e300}, {**step, "stage": "return"}]},
        {"steps": [{**step, "stage": "approval"}, {**step, "stage": "return"}], "financial_obligation": True},
        {"steps": [], "same_visit": True},
        {"fee": {"per_case": 10**30}},
        {"supplement_allowed": -1},
        {"unknown": 1},
        {"group": "made_up"},
        {"intake_mode": "record_only", "record_only_reason": None},
    ):
        problem(await put(desk, {**document, **wrong}), 422, "invalid")
    problem(await desk.call("PUT", "/v1/procedures/9.999999", "ops", document), 422, "code-differs")
    assert await desk.get(f"/v1/procedures/{BIRTH}") == document
    assert await published(desk, BIRTH) == [1]


async def test_an_example_that_intake_would_refuse_is_refused_with_its_reasons(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{BIRTH}")
    example = document["example"]
    for wrong, field, code in (
        ({"components": []}, "example/components/0/code", "unknown-component"),
        ({"example": {**example, "components": []}}, "example/components", "missing-component"),
        ({"example": {**example, "channel": "fax"}}, "example/channel", "not-one-of"),
        ({"example": {**example, "colour": "red"}}, "example/colour", "unknown-field"),
        ({"components": [{**row, "kinds": ["copy"]} for row in document["components"]]}, "example/components/0/kind",
         "component-kind-not-allowed"),
    ):  # fmt: skip
        refusal = problem(await put(desk, {**document, **wrong}), 422, "invalid")
        rows = {row["field"]: row for row in refusal["errors"]}
        assert rows[field]["code"] == code, wrong
        assert rows[field]["vi"]
        assert rows[field]["en"]
    assert await published(desk, BIRTH) == [1]


async def test_a_rule_takes_no_text_for_a_number_and_no_number_for_a_date(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{COPIES}")
    calendar = await desk.get("/v1/calendar")
    override = {"date": 1767312000, "kind": "off", "decided_by": "QĐ 1"}
    box = {"kind": "land_certificate", "serial_from": 1, "serial_to": 20}
    for path, body in (
        (f"/v1/procedures/{COPIES}", {**document, "time": {**document["time"], "working_days": "3"}}),
        (f"/v1/procedures/{COPIES}", {**document, "fee": {**document["fee"], "per_case": True}}),
        (f"/v1/procedures/{COPIES}", {**document, "same_visit": "no"}),
        ("/v1/calendar", {**calendar, "overrides": [override]}),
        ("/v1/blanks", {**box, "serial_from": True}),
        ("/v1/blanks", {**box, "serial_to": 20.0}),
    ):
        refusal = problem(await desk.call("PUT", path, "ops", body), 422, "invalid")
        assert all(row["vi"] and row["en"] for row in refusal["errors"])
    assert await published(desk, COPIES) == [1]
    assert await desk.get("/v1/calendar") == calendar
    assert (await desk.get("/v1/blanks"))["items"] == []


async def test_a_broken_rule_says_which_in_both_languages(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{BIRTH}")
    refusal = problem(await put(desk, {**document, "steps": [], "same_visit": True}), 422, "invalid")
    row = {key: refusal["errors"][0][key] for key in ("code", "vi", "en")}
    assert row == {
        "code": "rule",
        "vi": "Thủ tục trả ngay không chờ số được.",
        "en": "A same-visit procedure cannot wait for a number.",
    }


async def recorded(desk: Desk, count: int, code: str = BUSINESS) -> list[UUID]:
    """Dossiers recorded and not received, each an office minute after the one before."""
    found = []
    for minute in range(count):
        desk.set_clock(f"2025-08-27T09:{minute:02}:00+07:00")
        found.append(await desk.submit(code))
    return found


async def test_while_it_is_record_only_a_submission_is_recorded_and_counted_with_its_reason(desk: Desk) -> None:
    [dossier_id] = await recorded(desk, 1)
    shown = await desk.get(f"/v1/dossiers/{dossier_id}")
    assert (shown["state"], shown["national_status"], shown["dossier_code"], shown["due_at"]) == (
        "recorded",
        1,
        None,
        None,
    )
    assert (await desk.last_event(dossier_id, "DossierRecorded"))["waiting_for"] == "record_only"
    assert await desk.tasks() == []
    [row] = (await desk.get("/v1/stages"))["recorded_only"]
    assert (row["procedure_code"], row["waiting"]) == (BUSINESS, 1)
    assert row["reason"]
    assert row["oldest_since"]
    group = shipped()[BUSINESS].group
    assert await desk.metric("dossier_recorded_only", procedure_group=group) == 1
    await desk.receive(dossier_id, WithdrawalRequested(office_at=desk.service.office.now(), sealed_reason="x"))
    assert await desk.metric("dossier_recorded_only", procedure_group=group) == 0


async def test_while_it_is_record_only_what_waits_at_reception_is_not_received_either(desk: Desk) -> None:
    waiting = [await desk.submit(COPIES, channel="post", caller_role="system") for _ in range(3)]
    await desk.set_mode(COPIES, "record_only")
    tasks = [await desk.task_of(dossier_id, "reception") for dossier_id in waiting]
    problem(await desk.complete(tasks[0]), 409, "procedure-record-only")
    assert await desk.event_types(waiting[0]) == ["DossierRecorded"]
    assert (await desk.complete(tasks[0], "not_accepted", note="Sai thẩm quyền")).status_code == 200
    await desk.set_mode(COPIES, "open")
    assert (await desk.complete(tasks[1])).status_code == 200, "while opening, reception does not wait for the queue"
    while await opening._receive_batch(desk.app, COPIES):
        pass
    assert (await desk.complete(tasks[2])).status_code == 200


async def test_opening_receives_the_queue_oldest_first_and_newcomers_behind(desk: Desk, monkeypatch: Any) -> None:
    monkeypatch.setattr(opening, "BATCH", 2)
    queue = await recorded(desk, 5)
    desk.set_clock("2025-08-28T08:00:00+07:00")
    await desk.set_mode(BUSINESS, "open")
    assert (await desk.get(f"/v1/procedures/{BUSINESS}"))["intake_mode"] == "open"
    assert await opening._receive_batch(desk.app, BUSINESS)
    newcomer = await desk.submit(BUSINESS)
    assert (await desk.get(f"/v1/dossiers/{newcomer}"))["state"] == "recorded"
    while await opening._receive_batch(desk.app, BUSINESS):
        pass
    codes = [(await desk.get(f"/v1/dossiers/{dossier_id}"))["dossier_code"] for dossier_id in [*queue, newcomer]]
    assert codes == [f"H44.XXX-250828-{n:04d}" for n in range(1, 7)]
    last = await desk.submit(BUSINESS)
    assert (await desk.get(f"/v1/dossiers/{last}"))["dossier_code"] == "H44.XXX-250828-0007"


async def test_a_procedure_closed_again_while_its_queue_is_received_stops_there(desk: Desk, monkeypatch: Any) -> None:
    monkeypatch.setattr(opening, "BATCH", 1)
    queue = await recorded(desk, 3)
    await desk.set_mode(BUSINESS, "open")
    assert await opening._receive_batch(desk.app, BUSINESS)
    await desk.set_mode(BUSINESS, "record_only")
    assert not await opening._receive_batch(desk.app, BUSINESS)
    states = [(await desk.get(f"/v1/dossiers/{dossier_id}"))["state"] for dossier_id in queue]
    assert states == ["in_progress", "recorded", "recorded"]


async def test_a_procedure_closed_again_while_its_queue_is_received_skips_no_code(desk: Desk, monkeypatch: Any) -> None:
    monkeypatch.setattr(opening, "BATCH", 1)
    await recorded(desk, 3)
    await desk.set_mode(BUSINESS, "open")
    assert await opening._receive_batch(desk.app, BUSINESS)
    rows = await opening._list_recorded(desk.pool, BUSINESS, skip=[])
    await desk.set_mode(BUSINESS, "record_only")
    assert not await opening._receive(desk.app, BUSINESS, rows)
    await desk.set_mode(BUSINESS, "open")
    while await opening._receive_batch(desk.app, BUSINESS):
        pass
    codes = await desk.pool.fetch("select dossier_code from dossiers order by dossier_code")
    assert [row[0][-4:] for row in codes] == ["0001", "0002", "0003"]


async def test_a_procedure_closed_again_with_nothing_left_to_receive_stays_closed(desk: Desk) -> None:
    await desk.set_mode(BUSINESS, "open")
    await desk.set_mode(BUSINESS, "record_only")
    assert not await opening._receive_batch(desk.app, BUSINESS)
    assert (await desk.get(f"/v1/procedures/{BUSINESS}"))["intake_mode"] == "record_only"


async def test_nobody_is_left_between_the_end_of_the_queue_and_the_opening(desk: Desk) -> None:
    """A dossier that is being recorded while the queue ends is waited for, and received before the procedure opens."""
    await desk.set_mode(BUSINESS, "open")
    dossier_id, brought = desk.submission(BUSINESS)
    async with desk.pool.acquire() as tx:
        async with tx.transaction():
            unit = await store.open_unit(tx, desk.app, [dossier_id], Needs(procedures=[BUSINESS]))
            assert unit.modes[BUSINESS] == "opening"
            receiving = asyncio.create_task(opening._receive_batch(desk.app, BUSINESS))

            async def is_waiting() -> bool:
                return bool(await desk.pool.fetchval("select 1 from pg_locks where not granted limit 1"))

            await wait_until(is_waiting)
            handlers.on_dossier_submitted(unit, parse(brought))
            writes = Writes()
            await publish(tx, await unit.save(tx, writes), writes)
        assert await asyncio.wait_for(receiving, 10)
    assert await desk.pool.fetchval("select intake_mode from intake_modes where code = $1", BUSINESS) == "opening"
    while await opening._receive_batch(desk.app, BUSINESS):
        pass
    assert (await desk.get(f"/v1/dossiers/{dossier_id}"))["dossier_code"]
    assert await desk.pool.fetchval("select intake_mode from intake_modes where code = $1", BUSINESS) == "open"


async def test_the_calendar_is_replaced_as_a_whole_and_due_dates_follow_it(desk: Desk) -> None:
    asked = "/v1/due?procedure=1.004873&received=2026-01-08T10:00:00%2B07:00"
    before = await desk.get(asked)
    assert before["due_at"].startswith("2026-01-12")
    assert [day["date"] for day in before["days"] if day["counted"]] == ["2026-01-09", "2026-01-10", "2026-01-12"]
    calendar = await desk.get("/v1/calendar")
    storm = {"date": "2026-01-12", "kind": "off", "document": "công điện 1"}
    changed = {**calendar, "overrides": [*calendar["overrides"], storm]}
    assert (await desk.call("PUT", "/v1/calendar", "ops", changed)).json() == changed
    assert (await desk.get(asked))["due_at"].startswith("2026-01-13")
    twice = {**changed, "overrides": [*changed["overrides"], storm]}
    problem(await desk.call("PUT", "/v1/calendar", "ops", twice), 422, "invalid")
    problem(await desk.call("PUT", "/v1/calendar", "ops", {"office_hours": []}), 422, "invalid")
    assert await desk.get("/v1/calendar") == changed


async def test_a_due_date_needs_a_time_with_a_zone_and_a_known_procedure(desk: Desk) -> None:
    for received, status, code in (
        ("2026-01-08T10:00:00", 422, "bad-moment"),
        ("1800-01-08T10:00:00Z", 422, "bad-moment"),
        ("9999-12-31T23:59:59-12:00", 422, "bad-moment"),
        ("yesterday", 422, "invalid"),
    ):
        problem(await desk.call("GET", f"/v1/due?procedure={BIRTH}&received={received}"), status, code)
    problem(await desk.call("GET", "/v1/due?procedure=9.9&received=2026-01-08T10:00:00Z"), 404, "unknown-procedure")


async def test_boxes_of_blanks_never_overlap_and_may_be_corrected(desk: Desk) -> None:
    assert (await desk.put_blanks("land_certificate", 100, 199)).status_code == 200
    problem(await desk.put_blanks("land_certificate", 150, 250), 409, "blanks-overlap")
    problem(await desk.put_blanks("land_certificate", 199, 199), 409, "blanks-overlap")
    problem(await desk.put_blanks("land_certificate", 300, 299), 422, "bad-range")
    problem(await desk.put_blanks("Land", 1, 2), 422, "invalid")
    assert (await desk.put_blanks("another_kind", 150, 250)).status_code == 200
    box = {"kind": "land_certificate", "serial_from": 100, "serial_to": 199, "spoiled": 3}
    assert (await desk.call("PUT", "/v1/blanks", "records_clerk", box)).status_code == 200
    [_, mine] = (await desk.get("/v1/blanks"))["items"]
    assert (mine["used"], mine["spoiled"], mine["left"]) == (0, 3, 97)
    problem(await desk.call("PUT", "/v1/blanks", "counter", box), 403, "wrong-role")
    too_many = {**box, "spoiled": 101}
    problem(await desk.call("PUT", "/v1/blanks", "records_clerk", too_many), 422, "invalid")
    assert (await desk.call("PUT", "/v1/blanks", "records_clerk", {**box, "spoiled": 100})).status_code == 200


async def test_boxes_are_paged_and_each_is_met_once(desk: Desk) -> None:
    for kind in ("land_certificate", "another_kind"):
        for first in (9, 100, 1000):
            await desk.put_blanks(kind, first, first + 5)
    seen, after = [], ""
    while after is not None:
        page = await desk.get(f"/v1/blanks?limit=2&after={after}")
        seen += [(box["kind"], box["serial_from"]) for box in page["items"]]
        assert len(seen) <= 6, "the pages come to an end"
        after = page["next"]
    assert seen == [(kind, first) for kind in ("another_kind", "land_certificate") for first in (9, 100, 1000)]


async def test_of_many_boxes_that_overlap_entered_at_once_one_is_kept(desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.put_blanks("land_certificate", n, n + 100) for n in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
