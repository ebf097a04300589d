"""Intake accepts submissions with only PostgreSQL running; each takes effect once when the others return."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx2

from tests.fixtures.waiting import wait_until
from tests.journeys.conftest import Connection
from tests.journeys.town import BIRTH, COPY, Filed, Town

OTHERS = ("workflow", "idlookup", "notify", "registry", "sms")


async def file_some(town: Town) -> list[Filed]:
    return [await town.file(code, "H44.J90") for code in (BIRTH, COPY, BIRTH)]


async def test_with_everything_but_postgresql_down_submissions_are_accepted_and_take_effect_later(
    town: Town, connection: Connection
) -> None:
    for name in OTHERS:
        await asyncio.to_thread(town.stack.take_down, name)
    await connection.cut()
    try:
        filed = await file_some(town)
        await asyncio.to_thread(town.stack.restart, "intake")
        filed += await file_some(town)
        body, key = town.submission(COPY, "H44.J90"), {"Idempotency-Key": str(uuid4())}
        first = await town.once("intake", "POST", "/v1/dossiers", "counter", body, **key)
        town.stack.kill("intake")
        status, second = await town.call("intake", "POST", "/v1/dossiers", "counter", body, **key)
        assert (first.status_code, status) == (201, 200)
        assert second == first.json()
        filed.append(Filed(second["dossier_id"], second["tracking_secret"], "H44.J90"))
    finally:
        await connection.mend()
        for name in OTHERS:
            await asyncio.to_thread(town.stack.bring_back, name)
    await asyncio.to_thread(town.stack.wait_ready)
    await town.work_all(filed)
    for dossier in filed:
        assert (await town.types(dossier)).count("DossierRecorded") == 1
    await town.prove()


async def test_without_postgresql_intake_answers_503_and_recovers_without_a_restart(town: Town) -> None:
    pid = town.stack.pids["intake"]
    body, key = town.submission(COPY, "H44.J91"), {"Idempotency-Key": str(uuid4())}
    await asyncio.to_thread(town.stack.take_down, "postgres")
    try:
        refusal = await town.once("intake", "POST", "/v1/dossiers", "counter", body, **key)
        assert refusal.status_code == 503
        assert int(refusal.headers["retry-after"]) >= 1

        async def is_not_ready() -> bool:
            try:
                return (await town.once("intake", "GET", "/readyz", "")).status_code == 503
            except httpx2.HTTPError:
                return False

        await wait_until(is_not_ready, 20)
    finally:
        await asyncio.to_thread(town.stack.bring_back, "postgres")
    status, answer = await town.call("intake", "POST", "/v1/dossiers", "counter", body, **key)
    assert status == 201
    filed = Filed(answer["dossier_id"], answer["tracking_secret"], "H44.J91")
    await town.work_all([filed])
    assert town.stack.pids["intake"] == pid
    await asyncio.to_thread(town.stack.wait_ready)
    await town.prove()
