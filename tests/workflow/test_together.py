"""Everything at once, and everything cut off: no deadlock, no half decision, and what was begun goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta
from typing import Any

from services.workflow import opening, store, timers
from services.workflow.publishing import seed
from services.workflow.stock import AgencyDay
from services.workflow.store import Needs
from shared.contract.envelope import new_id
from shared.contract.events import IdNumberFound, WithdrawalRequested
from shared.postgres.writes import Writes
from tests.fixtures.databases import MakePool
from tests.fixtures.services import TOKENS, ServiceProcess, StartService
from tests.fixtures.waiting import wait_until
from tests.workflow.conftest import PACKAGES, Desk, no_broker, problem
from tests.workflow.lifecycle_scenes import BIRTH, BUSINESS, COPIES


async def deadlocks(desk: Desk) -> int:
    found: int = await desk.pool.fetchval("select deadlocks from pg_stat_database where datname = current_database()")
    return found


async def test_consumer_officers_timers_and_rules_never_lock_each_other_out(desk: Desk) -> None:
    """Batches of many dossiers, bulk completions, late hours, changed rules, an opened queue, all in one database."""
    await desk.put_blanks("household_business_certificate", 1, 1_000)
    births = [await desk.submit(BIRTH, has_personal_id=False) for _ in range(8)]
    for dossier_id in births:
        await desk.forward(dossier_id, "appraisal", "approval", "issuing")
    wanted = {dossier_id: (await desk.last_event(dossier_id, "IdNumberWanted"))["ce_id"] for dossier_id in births}
    desk.set_clock("2025-08-28T17:30:00+07:00")
    done = asyncio.Event()

    async def batches() -> None:
        for n in range(10):
            brought = [desk.submission(code)[1] for code in (COPIES, BUSINESS, BIRTH) * 4]
            if n < len(births):
                late = births[n]
                brought.append(desk.record(late, IdNumberFound(request_key=wanted[late], sealed_number="s")))
            await desk.consumer.apply(brought)
        done.set()

    async def officers() -> None:
        while not done.is_set():
            for role in ("counter", "specialist", "signatory", "records_clerk"):
                rows = await desk.tasks(f"role={role}&limit=20")
                items = [
                    {
                        "task_id": task["task_id"],
                        "outcome": next(o["code"] for o in task["outcomes"] if o["forward"]),
                        "version": task["version"],
                    }
                    for task in rows
                ]
                if items:
                    answer = await desk.call("POST", "/v1/tasks/complete", role, {"items": items})
                    assert answer.status_code == 200
                    assert {row["status"] for row in answer.json()["items"]} <= {200, 409}

    async def hours() -> None:
        while not done.is_set():
            await timers._fire_batch(desk.app)
            await asyncio.sleep(0.01)

    async def rulers() -> None:
        fee = 0
        while not done.is_set():
            for mode in ("open", "record_only"):
                fee += 1_000
                document = await desk.get(f"/v1/procedures/{BUSINESS}")
                document |= {"intake_mode": mode, "record_only_reason": "hết phôi", "fee": {"per_case": fee}}
                answer = await desk.call("PUT", f"/v1/procedures/{BUSINESS}", "ops", document)
                assert answer.status_code == 200, answer.text
                await opening._receive_batch(desk.app, BUSINESS)

    await asyncio.wait_for(
        asyncio.gather(batches(), officers(), officers(), hours(), rulers(), desk.get("/v1/stages")), 90
    )
    await desk.set_mode(BUSINESS, "open")
    while await opening._receive_batch(desk.app, BUSINESS):
        pass
    assert await deadlocks(desk) == 0
    assert await desk.pool.fetchval("select count(*) from parked") == 0
    await check_tables(desk, 8 + 10 * 12)


WAITING = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' limit 1"


async def check_tables(desk: Desk, dossiers: int) -> None:
    """Columns, bodies, tasks and events agree, whatever happened in whatever order."""
    rows = await desk.pool.fetch("select * from dossiers")
    assert len(rows) == dossiers
    codes = [row["dossier_code"] for row in rows if row["dossier_code"]]
    assert len(set(codes)) == len(codes)
    blanks = []
    for row in rows:
        body = json.loads(row["body"])
        assert (body["state"], body["national_status"]) == (row["state"], row["national_status"])
        types = await desk.event_types(row["dossier_id"])
        assert len(types) == row["lifecycle_sequence"]
        open_tasks = await desk.pool.fetch(
            "select task_id from tasks where dossier_id = $1 and state <> 'closed'", row["dossier_id"]
        )
        assert {str(task["task_id"]) for task in open_tasks} == {task["task_id"] for task in body["tasks"]}
        blanks += [body["blank"]] if "blank" in body else []
    assert len(set(blanks)) == len(blanks)
    assert await desk.pool.fetchval("select coalesce(sum(next_serial - serial_from), 0) from blanks") == len(blanks)
    assert await desk.pool.fetchval("select count(*) from proof.applied where times > 1") == 0


async def test_rules_changed_while_submissions_come_wait_for_each_other_in_one_order(desk: Desk) -> None:
    """The lanes' locks come last: a publisher that held one while it waited for a mode would meet the consumer."""
    document = await desk.get(f"/v1/procedures/{COPIES}")

    async def publish() -> None:
        for n in range(12):
            changed = {**document, "fee": {"per_case": 1_000 * (n + 1)}}
            changed["intake_mode"], changed["record_only_reason"] = (
                ("open", None) if n % 2 else ("record_only", "hết phôi")
            )
            assert (await desk.call("PUT", f"/v1/procedures/{COPIES}", "ops", changed)).status_code == 200

    async def submit() -> None:
        for _ in range(12):
            await desk.consumer.apply([desk.submission(COPIES)[1] for _ in range(6)])

    await asyncio.wait_for(asyncio.gather(publish(), submit()), 60)
    assert await deadlocks(desk) == 0


async def test_a_timer_that_is_moved_while_it_fires_is_kept_and_decides_nothing(desk: Desk) -> None:
    """Timers have no lock of their own: they are found unlocked, and read again under their dossiers' locks."""
    dossier_id = await desk.submit(BIRTH, has_personal_id=False)
    await desk.forward(dossier_id, "appraisal", "approval", "issuing")
    due_at = await desk.pool.fetchval("select due_at from timers where dossier_id = $1", dossier_id)
    desk.set_clock((due_at + timedelta(minutes=1)).isoformat())
    async with desk.pool.acquire() as tx:
        async with tx.transaction():
            await tx.execute("select 1 from dossiers where dossier_id = $1 for update", dossier_id)
            await tx.execute("update timers set due_at = due_at + interval '1 day'")
            firing = asyncio.create_task(timers._fire_batch(desk.app))
            await wait_until(lambda: desk.pool.fetchval(WAITING))
        assert await asyncio.wait_for(firing, 10) == 1
    assert await desk.pool.fetchval("select due_at from timers") == due_at + timedelta(days=1)
    assert await desk.tasks("role=signatory") == []


async def test_a_decision_that_cannot_be_stored_leaves_nothing(desk: Desk, monkeypatch: Any) -> None:
    dossier_id = await desk.submit(BIRTH)
    task = await desk.task_of(dossier_id, "appraisal")
    before = await desk.get(f"/v1/dossiers/{dossier_id}")

    run = Writes.run

    async def fail(self: Writes, tx: Any) -> None:
        await run(self, tx)
        raise ConnectionResetError("cut off before the commit")

    monkeypatch.setattr(Writes, "run", fail)
    answer = await desk.complete(task)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    monkeypatch.undo()
    assert await desk.get(f"/v1/dossiers/{dossier_id}") == before
    assert await desk.task_of(dossier_id, "appraisal") == task
    assert await desk.metric("dossier_stage_left_total", stage="appraisal", outcome="agree") is None
    assert (await desk.complete(task)).status_code == 200


async def test_an_event_that_comes_twice_in_one_batch_or_in_two_has_one_effect(desk: Desk) -> None:
    dossier_id, brought = desk.submission(COPIES)
    gone = desk.record(dossier_id, WithdrawalRequested(office_at=desk.service.office.now(), sealed_reason="x"))
    await desk.consumer.apply([brought, brought, gone])
    await desk.consumer.apply([gone, brought])
    assert await desk.event_types(dossier_id) == ["DossierRecorded", "DossierReceived", "DossierWithdrawn"]
    entered = await desk.metric("dossier_stage_entered_total", stage="return", procedure_group="certification")
    left = await desk.metric("dossier_stage_left_total", stage="return", outcome="withdrawn")
    assert (entered, left) == (1, 1), "a stay that began and ended in one batch is a stay"


async def until_open(service: ServiceProcess, desk: Desk, code: str, bound_s: float = 40) -> None:
    async def is_open() -> bool:
        mode = await desk.pool.fetchval("select intake_mode from intake_modes where code = $1", code)
        return bool(mode == "open")

    await wait_until(is_open, bound_s)
    assert service.poll() is None


async def test_opening_goes_on_after_a_kill_and_keeps_its_order(
    make_pool: MakePool, start_service: StartService
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    desk = Desk(pool)
    await seed(desk.app)
    queue = [new_id() for _ in range(600)]
    records = []
    for n, dossier_id in enumerate(queue):
        desk.set_clock(f"2025-08-{1 + n // 1440:02}T{n % 1440 // 60:02}:{n % 60:02}:00+07:00")
        records.append(desk.submission(BUSINESS, dossier_id)[1])
    await desk.consumer.apply(records)
    await desk.set_mode(BUSINESS, "open")
    received = "select count(*) from dossiers where dossier_code is not null"
    service = await start_service("workflow", dsn, no_broker())

    async def is_under_way() -> bool:
        return bool(await pool.fetchval(received) > 0)

    await wait_until(is_under_way, 20, every_s=0.005)
    service.kill()
    done = await pool.fetchval(received)
    assert 0 < done < 600, "killed in the middle"
    service.start()
    await service.until_ready()
    await until_open(service, desk, BUSINESS)
    rows = await pool.fetch("select dossier_id, dossier_code from dossiers order by recorded_at, dossier_id")
    assert [row["dossier_id"] for row in rows] == queue
    codes = [row["dossier_code"] for row in rows]
    assert codes == sorted(codes)
    assert len(set(codes)) == 600
    assert await pool.fetchval("select count(*) from events where type = 'DossierReceived'") == 600


async def test_the_process_serves_without_a_broker_and_says_so(
    make_pool: MakePool, start_service: StartService
) -> None:
    dsn, _ = await make_pool.with_dsn(*PACKAGES)
    service = await start_service("workflow", dsn, no_broker())
    async with service.client("counter") as client:
        ready = (await client.get("/readyz")).json()
        assert (ready["status"], ready["broker"]) == ("ready", "connecting")

        async def procedures() -> list[Any]:
            answer = await client.get("/v1/procedures?limit=1000")
            if answer.status_code == 503:
                problem(answer, 503, "unavailable")
                return []
            listed: list[Any] = answer.json()["items"]
            assert listed, "an empty list is no answer while they are being stored"
            return listed

        assert len(await wait_until(procedures)) >= 18
        assert (await client.get("/v1/tasks")).json() == {"items": [], "next": None}

        async def has_gauges() -> bool:
            return 'dossier_stage_target_seconds{stage="approval"}' in (await client.get("/metrics")).text

        await wait_until(has_gauges)
        document = (await client.get("/openapi.json")).json()
        assert "/v1/tasks/{task_id}/complete" in document["paths"]
    assert TOKENS["counter"] not in service.log.read_text()
    assert service.stop()


async def test_reserved_codes_that_were_not_used_go_to_the_next_dossier(desk: Desk) -> None:
    """As many are reserved as a batch will probably use: all of them by a transaction that then failed, or too many."""
    today = AgencyDay.of("H44.XXX", desk.service.office.now())
    with contextlib.suppress(ZeroDivisionError):
        async with desk.pool.acquire() as tx, tx.transaction():
            await store.open_unit(tx, desk.app, [], Needs(codes={today: 7}))
            raise ZeroDivisionError
    await desk.submit(COPIES)
    async with desk.pool.acquire() as tx, tx.transaction():
        unit = await store.open_unit(tx, desk.app, [], Needs(codes={today: 5}))
        assert unit.context.code_for("H44.XXX", unit.context.office)[-4:] == "0002"
        writes = Writes()
        await unit.save(tx, writes)
        await writes.run(tx)
    await desk.submit(COPIES)
    codes = await desk.pool.fetch("select dossier_code from dossiers order by dossier_code")
    assert [row[0][-4:] for row in codes] == ["0001", "0003"]


async def test_more_codes_than_were_expected_are_counted(desk: Desk) -> None:
    today = AgencyDay.of("H44.XXX", desk.service.office.now())
    async with desk.pool.acquire() as tx, tx.transaction():
        unit = await store.open_unit(tx, desk.app, [], Needs(codes={today: 1}))
        given = [unit.context.code_for("H44.XXX", unit.context.office)[-4:] for _ in range(3)]
        writes = Writes()
        await unit.save(tx, writes)
        await writes.run(tx)
    await desk.submit(COPIES)
    assert given == ["0001", "0002", "0003"]
    assert (await desk.pool.fetchval("select dossier_code from dossiers"))[-4:] == "0004"
