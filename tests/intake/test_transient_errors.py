"""Intake while PostgreSQL refuses to write: 503, nothing half stored, and the same request works afterwards."""

from __future__ import annotations

import httpx2
import pytest

from tests.fixtures.troubles import KINDS, trouble
from tests.intake.conftest import Intake, assert_problem, example


def assert_come_again(answer: httpx2.Response) -> None:
    assert_problem(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("table", ["submissions", "events"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_transient_error_is_answered_503_and_leaves_nothing(kind: str, table: str, intake: Intake) -> None:
    accepted = await intake.submitted()
    withdrawal = f"/v1/dossiers/{accepted['dossier_id']}/withdrawal"
    before, pid = await intake.stored(), intake.service.pid
    keys = [intake.key() for _ in range(6)]
    body = {"reason": "Đã nộp nhầm"}
    async with trouble(intake.service.dsn, kind, table) as met:
        for key in keys:
            assert_come_again(await intake.counter.post("/v1/dossiers", json=example(), headers=key))
        if table == "events":
            assert_come_again(await intake.counter.post(withdrawal, json=body, headers=intake.key()))
        assert await met.met() == len(keys) + (table == "events")
        assert await intake.stored() == before
    for key in keys:
        answer = await intake.counter.post("/v1/dossiers", json=example(), headers=key)
        assert answer.status_code == 201
    after = await intake.stored()
    assert (after["submissions"], after["events"]) == (before["submissions"] + 6, before["events"] + 6)
    assert (intake.service.pid, intake.service.poll()) == (pid, None)
