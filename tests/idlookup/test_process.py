"""The whole service as its own process: killed around a call and restarted; its API, log and metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from shared.contract.envelope import new_id
from shared.contract.events import RequestHeartbeat
from shared.kafka.settings import KafkaSettings
from tests.fixtures.databases import MakePool
from tests.fixtures.outside import Outside
from tests.fixtures.services import ServiceProcess, StartService
from tests.fixtures.waiting import wait_until
from tests.idlookup.lookup import (
    AT,
    NAME,
    PACKAGES,
    PERSON,
    births,
    check_wanted,
    dossier_of,
    key_of,
    no_longer_wanted,
    publish,
    published_events,
    record_of,
    sealer,
    states,
    until_answered,
)

NOTE = {"note": "Đã đối chiếu sổ hộ tịch"}


async def until_connected(service: ServiceProcess) -> None:
    async with service.client("ops") as client:

        async def is_connected() -> bool:
            return bool((await client.get("/readyz")).json()["broker"] == "connected")

        await wait_until(is_connected, 30)


@pytest.mark.parametrize(
    ("place", "lost"),
    [
        ("idlookup-before-call", 0.0),
        ("idlookup-before-call:2", 1.0),
        ("idlookup-after-answer", 0.0),
        ("idlookup-after-answer", 1.0),
        ("idlookup-before-commit", 0.0),
        ("relay-after-send", 0.0),
    ],
)
async def test_killed_anywhere_and_restarted_nobody_gets_two_numbers(
    place: str,
    lost: float,
    kafka: KafkaSettings,
    make_pool: MakePool,
    start_service: StartService,
    registry: Outside,
    tmp_path: Path,
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    await registry.control(lost_answer_rate=lost)
    service = await start_service(
        "idlookup",
        dsn,
        kafka,
        HOSO_REGISTRY_URL=registry.url,
        HOSO_CALL_DEADLINE_S="0.5",
        HOSO_FAULT=place,
        HOSO_FAULT_FILE=str(tmp_path / "died"),
    )
    await until_connected(service)
    wanted = births(8)
    await publish(kafka, wanted)
    await wait_until(lambda: service.poll() == -9, 30, what=f"killed at {place}")
    await registry.control(lost_answer_rate=0.0)
    service.start()
    assert await until_answered(pool, 8) == {"found": 8}
    stats = await registry.stats()
    assert (stats["numbers_issued"], stats["numbers_issued_twice"]) == (8, 0)
    for record in wanted:
        assert [(n, kind) for n, kind, _ in await published_events(pool, dossier_of(record))] == [(1, "IdNumberFound")]


async def test_killed_again_and_again_with_a_failing_registry_everybody_gets_one_number(
    kafka: KafkaSettings, make_pool: MakePool, start_service: StartService, registry: Outside
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    await registry.control(lost_answer_rate=0.2, error_rate=0.2, latency_p50_s=0.2, latency_p95_s=2.0)
    service = await start_service("idlookup", dsn, kafka, HOSO_REGISTRY_URL=registry.url, HOSO_CALL_DEADLINE_S="0.3")
    await until_connected(service)
    await publish(kafka, births(150))
    for kills in range(1, 5):

        async def some_more_are_found(least: int = kills * 20) -> bool:
            return (await states(pool)).get("found", 0) >= least

        await wait_until(some_more_are_found, 40)
        service.kill()
        if kills == 2:
            await registry.control(forget_keys=True)
        service.start()
    await registry.control(lost_answer_rate=0.0, error_rate=0.0)
    assert await until_answered(pool, 150, 60) == {"found": 150}
    stats = await registry.stats()
    assert (stats["numbers_issued"], stats["numbers_issued_twice"]) == (150, 0)
    assert await pool.fetchval("select count(*) from events where type = 'IdNumberFound'") == 150


async def test_after_a_stop_during_calls_the_next_process_goes_on(
    kafka: KafkaSettings, make_pool: MakePool, start_service: StartService, registry: Outside
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    await registry.control(latency_p50_s=0.3, latency_p95_s=2.0)
    service = await start_service("idlookup", dsn, kafka, HOSO_REGISTRY_URL=registry.url, HOSO_CALL_DEADLINE_S="0.5")
    await until_connected(service)
    await publish(kafka, births(60))

    async def some_are_found() -> bool:
        return (await states(pool)).get("found", 0) > 10

    await wait_until(some_are_found, 30)
    assert service.stop()
    service.start()
    assert await until_answered(pool, 60) == {"found": 60}
    stats = await registry.stats()
    assert (stats["numbers_issued"], stats["numbers_issued_twice"]) == (60, 0)


async def test_two_processes_share_the_work_and_no_number_is_asked_for_twice(
    kafka: KafkaSettings, make_pool: MakePool, start_service: StartService, registry: Outside
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    first = await start_service("idlookup", dsn, kafka, HOSO_REGISTRY_URL=registry.url, HOSO_CALL_DEADLINE_S="0.5")
    await start_service("idlookup", dsn, kafka, HOSO_REGISTRY_URL=registry.url, HOSO_CALL_DEADLINE_S="0.5")
    await until_connected(first)
    await publish(kafka, births(100))
    assert await until_answered(pool, 100) == {"found": 100}
    stats = await registry.stats()
    assert (stats["requests"], stats["numbers_issued"], stats["numbers_issued_twice"]) == (100, 100, 0)
    assert await pool.fetchval("select count(*) from events where type = 'IdNumberFound'") == 100


NO_CURSORS = ("x", "2026-01-01T00:00:00+07:00~x", f"2026-01-01T00:00:00~{new_id()}")
"""Text that no page gives as a cursor; the last has no time zone."""


async def test_the_api_lists_requests_and_takes_decisions_about_duplicates(
    kafka: KafkaSettings, make_pool: MakePool, start_service: StartService, registry: Outside
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    await registry.control(duplicate_rate=1.0)
    service = await start_service("idlookup", dsn, kafka, HOSO_REGISTRY_URL=registry.url, HOSO_CALL_DEADLINE_S="0.5")
    await until_connected(service)
    same, new, dropped = births(3)
    check_id = new_id()
    await publish(kafka, [same, new, dropped, record_of(check_wanted(check_id), check_id, 1)])
    assert await until_answered(pool, 4) == {"duplicate": 3, "matched": 1}
    for record in (same, new, dropped):
        assert [kind for _, kind, _ in await published_events(pool, dossier_of(record))] == [
            "IdNumberDuplicateSuspected"
        ]
    await publish(kafka, [record_of(no_longer_wanted(key_of(dropped)), dossier_of(dropped), 2)])
    await wait_until(lambda: is_state(pool, dropped, "stopped"))
    path = "/v1/requests/{}/resolve"
    async with service.client("specialist") as officer:
        answer = await officer.post(path.format(key_of(dropped)), json={"decision": "new_person", **NOTE})
        assert (answer.status_code, answer.json()["code"]) == (409, "not-a-duplicate")
        assert (await officer.post(path.format(new_id()), json={"decision": "new_person", **NOTE})).status_code == 404
        without = await officer.post(path.format(key_of(same)), json={"decision": "same_person", **NOTE})
        assert (without.status_code, without.json()["code"]) == (422, "number-needed")
        wrong = await officer.post(
            path.format(key_of(same)), json={"decision": "same_person", "number": "02532600012x", **NOTE}
        )
        assert (wrong.status_code, "02532600012x" in wrong.text) == (422, False)
        assert [row.keys() for row in wrong.json()["errors"]] == [{"field", "code", "vi", "en"}]
        given = {"decision": "same_person", "number": "025126000123", **NOTE}
        assert (await officer.post(path.format(key_of(same)), json=given)).status_code == 200
        assert (await officer.post(path.format(key_of(same)), json=given)).status_code == 409
        assert (await officer.post(path.format(key_of(new)), json={"decision": "new_person", **NOTE})).is_success
        assert await until_answered(pool, 4) == {"found": 2, "stopped": 1, "matched": 1}
        first = (await officer.get("/v1/requests", params={"limit": 2})).json()
        # A cursor needs no encoding in an address.
        rest = (await officer.get(f"/v1/requests?limit=2&after={first['next']}")).json()
        last = (await officer.get("/v1/requests", params={"limit": 2, "after": rest["next"]})).json()
        rows = first["items"] + rest["items"]
        assert len({row["request_key"] for row in rows}) == 4
        assert last == {"items": [], "next": None}
        found = await officer.get("/v1/requests", params={"state": "found"})
        shown = {row["request_key"]: row for row in found.json()["items"]}
        assert shown[str(key_of(same))]["number"] == "*********123"
        assert re.search(r"\d{12}", re.sub(r"[\w]{8}-[\w-]{27}", "", found.text)) is None
        assert {(await officer.get("/v1/requests", params={"after": at})).status_code for at in NO_CURSORS} == {400}
        assert (await officer.get("/v1/requests", params={"state": "x"})).status_code == 422
    async with service.client("ops") as ops:
        assert (await ops.get("/v1/requests")).status_code == 200
        assert (await ops.post(path.format(key_of(same)), json=given)).status_code == 403
        metrics = await figures(ops)
    async with service.client("system") as system:
        assert (await system.get("/v1/requests")).status_code == 403
    (_, kind, data) = (await published_events(pool, dossier_of(same)))[1]
    assert (kind, data["warnings"]) == ("IdNumberFound", ["same-person", "year"])
    assert sealer.open(dossier_of(same), "number", data["sealed_number"]) == "025126000123"
    stats = await registry.stats()
    assert (stats["requests"], stats["numbers_issued"], stats["numbers_issued_twice"]) == (4, 1, 0)
    assert_work_is_reported_and_queues_are_not(metrics)


async def figures(ops: Any) -> str:
    """The metrics page, once the work on numbers has been counted."""

    async def counted() -> str:
        page = str((await ops.get("/metrics")).text)
        return page if 'dossier_stage_busy_seconds_total{stage="id_number"} 0.0' not in page else ""

    return await wait_until(counted)


def assert_work_is_reported_and_queues_are_not(metrics: str) -> None:
    """workflow reports how many dossiers wait and since when; a second report could contradict it."""
    for name in (
        'idlookup_request_duration_seconds_count{kind="verify",outcome="matched"} 1.0',
        'idlookup_inflight{kind="issue"} 0.0',
        'idlookup_concurrency_limit{kind="verify"} ',
        'idlookup_breaker_state{kind="issue",state="closed"} 1.0',
        'dossier_stage_in_progress{stage="id_number"} 0.0',
        'dossier_stage_service_seconds_count{stage="identity_check"} 1.0',
    ):
        assert name in metrics
    for stage in ("id_number", "identity_check"):
        for name in ("dossier_stage_workers", "dossier_stage_busy_seconds_total"):
            shown = re.search(rf'{name}\{{stage="{stage}"\}} (\S+)', metrics)
            assert shown is not None
            assert float(shown[1]) > 0, (name, stage)
    for name in ("dossier_stage_waiting", "dossier_stage_oldest_waiting_seconds", "dossier_stage_wait_seconds_count"):
        assert f'{name}{{stage="id_number"' not in metrics


async def is_state(pool: Any, record: Any, state: str) -> bool:
    present = await pool.fetchval("select state from proof.id_requests where request_key = $1", key_of(record))
    return bool(present == state)


async def test_a_tampered_subject_is_parked_heartbeats_go_on_and_the_log_names_nobody(
    kafka: KafkaSettings, make_pool: MakePool, start_service: StartService, registry: Outside
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    await registry.control(error_rate=0.3, duplicate_rate=0.2, lost_answer_rate=0.1)
    service = await start_service(
        "idlookup",
        dsn,
        kafka,
        HOSO_REGISTRY_URL=registry.url,
        HOSO_LOG_LEVEL="DEBUG",
        HOSO_CALL_DEADLINE_S="0.5",
    )
    await until_connected(service)
    elsewhere = new_id()
    moved = record_of(check_wanted(new_id()), elsewhere, 1)
    await publish(kafka, [*births(30), moved, record_of(RequestHeartbeat(sent_at=AT), None, 0)])
    answered = await until_answered(pool, 30, 60)
    assert answered.keys() <= {"found", "duplicate"}
    parked = await pool.fetch("select dossier_id, reason from proof.parked")
    assert [(row["dossier_id"], row["reason"]) for row in parked] == [(elsewhere, "tampered")]

    async def heartbeat_is_published() -> bool:
        return bool(await pool.fetchval("select count(*) from events where type = 'ResultHeartbeat'"))

    await wait_until(heartbeat_is_published)
    async with service.client("ops") as ops:
        metrics = (await ops.get("/metrics")).text
    seen = re.search(r'dossier_heartbeat_seen_timestamp_seconds\{stage="id_number"\} (\S+)', metrics)
    assert seen is not None
    assert float(seen[1]) == AT.timestamp()
    log = service.log.read_text("utf-8")
    assert NAME not in log
    assert PERSON["full_name"] not in log
    assert re.search(r"(?<![\w-])\d{12}(?![\w-])", log) is None
