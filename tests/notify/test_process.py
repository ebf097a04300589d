"""The whole service as its own process: killed around a send and restarted; what its API shows to whom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from shared.contract.envelope import Record, new_id
from shared.kafka.settings import KafkaSettings
from tests.fixtures.databases import MakePool
from tests.fixtures.services import ServiceProcess, StartService
from tests.fixtures.waiting import wait_until
from tests.notify.conftest import MailServer, SmsGateway
from tests.notify.ledger import (
    NAME,
    WITH_EMAIL,
    WITH_NOTHING,
    WITH_PHONE,
    notice_id_of,
    record_of,
    wanted,
)

PACKAGES = ("shared", "services.notify")
DEADLINE = {"HOSO_CHANNEL_DEADLINE_S": "0.7"}


async def publish(kafka: KafkaSettings, records: Sequence[Record]) -> None:
    producer: AIOKafkaProducer = kafka.producer("test")
    await producer.start()
    try:
        for row in records:
            headers = list(row.headers)
            await producer.send_and_wait(row.topic, row.value, key=row.key, headers=headers, partition=row.partition)
    finally:
        await producer.stop()


async def until_connected(service: ServiceProcess) -> None:
    async with service.client("ops") as client:

        async def is_connected() -> bool:
            return bool((await client.get("/readyz")).json()["broker"] == "connected")

        await wait_until(is_connected, 30)


async def states(pool: Any) -> list[tuple[str, str]]:
    return sorted(tuple(row) for row in await pool.fetch("select channel, state from proof.notices"))


@pytest.mark.parametrize("place", ["notify-before-send", "notify-after-send"])
async def test_killed_around_a_send_one_message_goes_out(
    place: str,
    kafka: KafkaSettings,
    make_pool: MakePool,
    start_service: StartService,
    sms_gateway: SmsGateway,
    tmp_path: Path,
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    armed = {"HOSO_FAULT": place, "HOSO_FAULT_FILE": str(tmp_path / "died"), **DEADLINE}
    service = await start_service("notify", dsn, kafka, HOSO_SMS_URL=sms_gateway.url, **armed)
    await until_connected(service)
    dossier_id = new_id()
    await publish(kafka, [record_of(wanted(dossier_id, WITH_PHONE), dossier_id, 1)])
    await wait_until(lambda: service.poll() == -9, 30)
    assert await states(pool) == [("sms", "sending")]
    service.start()
    await wait_until(lambda: is_settled(pool), 30)
    assert await states(pool) == [("sms", "sent")]
    stats = await sms_gateway.stats()
    assert (stats["messages"], stats["sent_twice"]) == (1, 0)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("notify-before-send", [("email", "sent")]),
        ("notify-after-send", [("call_list", "listed"), ("email", "failed")]),
    ],
)
async def test_killed_around_a_mail_it_goes_out_once_and_if_the_outcome_is_unknown_somebody_calls(
    place: str,
    expected: list[tuple[str, str]],
    kafka: KafkaSettings,
    make_pool: MakePool,
    start_service: StartService,
    mail_server: MailServer,
    tmp_path: Path,
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    armed = {"HOSO_FAULT": place, "HOSO_FAULT_FILE": str(tmp_path / "died"), **DEADLINE}
    service = await start_service("notify", dsn, kafka, HOSO_SMTP=mail_server.address, **armed)
    await until_connected(service)
    dossier_id = new_id()
    await publish(kafka, [record_of(wanted(dossier_id, WITH_EMAIL), dossier_id, 1)])
    await wait_until(lambda: service.poll() == -9, 30)
    service.start()
    await wait_until(lambda: is_settled(pool), 30)
    assert await states(pool) == expected
    assert len(mail_server.messages()) == 1


async def test_the_api_shows_the_ledger_without_persons_and_the_call_list_only_to_callers(
    kafka: KafkaSettings, make_pool: MakePool, start_service: StartService
) -> None:
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    service = await start_service("notify", dsn, kafka)
    await until_connected(service)
    dossiers = [new_id() for _ in range(3)]
    contacts = [WITH_NOTHING, {**WITH_PHONE, "residential_area": "Khu 1"}, WITH_PHONE]
    records = [record_of(wanted(d, contact), d, 1) for d, contact in zip(dossiers, contacts, strict=True)]
    await publish(kafka, records)

    async def all_listed() -> bool:
        return await states(pool) == [("call_list", "listed")] * 3

    await wait_until(all_listed, 30)
    async with service.client("specialist") as officer:
        page = await officer.get("/v1/notices", params={"dossier_id": str(dossiers[2])})
        assert [row["channel"] for row in page.json()["items"]] == ["call_list"]
        assert "0912" not in page.text
        assert NAME not in page.text
        first = (await officer.get("/v1/notices", params={"limit": 2})).json()
        rest = (await officer.get("/v1/notices", params={"limit": 2, "after": first["next"]})).json()
        assert len({row["notice_id"] for row in first["items"] + rest["items"]}) == 3
        assert rest["next"] is None
        assert (await officer.get("/v1/notices", params={"after": "x"})).status_code == 400
        assert (await officer.get("/v1/call-list")).status_code == 403
    async with service.client("counter") as counter:
        calls = (await counter.get("/v1/call-list", params={"agency": "H44.99"})).json()["items"]
        assert [call["residential_area"] for call in calls] == ["Khu 1", "Khu 2", "Khu 3"]
        assert calls[2]["phone"] == "0912 345 678"
        text = (await counter.get("/v1/call-list", params={"format": "text"})).text
        assert text.index("== Khu 1 (1)") < text.index("== Khu 2 (1)") < text.index("== Khu 3 (1)")
        assert NAME in text
        assert (await counter.get("/v1/call-list", params={"agency": "other"})).json() == {"items": [], "next": None}
        done = f"/v1/call-list/{notice_id_of(records[2])}/done"
        first_time = await counter.post(done)
        assert first_time.status_code == 200
        assert (await counter.post(done)).json() == first_time.json()
        assert len((await counter.get("/v1/call-list")).json()["items"]) == 2
        assert (await counter.post(f"/v1/call-list/{new_id()}/done")).status_code == 404
    assert await pool.fetchval("select count(*) from contact_readings where dossier_id = $1", dossiers[2]) == 2
    assert await pool.fetchval("select sealed_contact from notices where done_at is not null") is None
    metrics = (await service.client("ops").get("/metrics")).text
    assert 'dossier_stage_left_total{outcome="listed",stage="notify"} 3.0' in metrics
    assert 'dossier_stage_entered_total{procedure_group="all",stage="notify"} 3.0' in metrics
    assert NAME not in service.log.read_text("utf-8")


async def is_settled(pool: Any) -> bool:
    return all(state not in ("due", "sending") for _, state in await states(pool))
