"""Idempotency keys: the same key and body make one dossier and have one answer, whatever happens in between."""

from __future__ import annotations

import asyncio
import json

from shared.submission.rules import ProcedureRules
from tests.fixtures.waiting import wait_until
from tests.intake.conftest import BIRTH, DOCUMENTS, Intake, assert_problem, documents, example, publish

PATH = "/v1/dossiers"


async def test_the_same_key_and_body_again_gets_the_same_answer(intake: Intake) -> None:
    key = intake.key()
    first = await intake.counter.post(PATH, json=example(), headers=key)
    before = await intake.stored()
    again = await intake.counter.post(PATH, json=example(), headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert await intake.stored() == before


async def test_the_same_body_in_another_order_and_spacing_is_the_same(intake: Intake) -> None:
    key = {**intake.key(), "Content-Type": "application/json"}
    first = await intake.counter.post(PATH, json=example(), headers=key)
    turned = json.dumps(dict(reversed(example().items())), indent=4, ensure_ascii=True)
    again = await intake.counter.post(PATH, content=turned, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


async def test_the_same_key_with_another_body_is_409_valid_or_not(intake: Intake) -> None:
    key = intake.key()
    assert (await intake.counter.post(PATH, json=example(), headers=key)).status_code == 201
    before = await intake.stored()
    for other in (example(copies=3), example(procedure_code="9.999999"), {}):
        answer = await intake.counter.post(PATH, json=other, headers=key)
        assert_problem(answer, 409, "idempotency-key-reused")
    assert await intake.stored() == before


async def test_a_key_belongs_to_its_caller(intake: Intake) -> None:
    key = intake.key()
    one = await intake.counter.post(PATH, json=example(), headers=key)
    other = await intake.system.post(PATH, json=example(copies=2), headers=key)
    assert (one.status_code, other.status_code) == (201, 201)
    assert one.json()["dossier_id"] != other.json()["dossier_id"]


async def test_a_refused_body_does_not_use_its_key_up(intake: Intake) -> None:
    key = intake.key()
    assert (await intake.counter.post(PATH, json={}, headers=key)).status_code == 422
    assert (await intake.counter.post(PATH, json=example(), headers=key)).status_code == 201


async def test_many_at_once_with_one_key_make_one_dossier(intake: Intake) -> None:
    before = await intake.stored()
    for _ in range(5):
        key = intake.key()
        answers = await asyncio.gather(*(intake.counter.post(PATH, json=example(), headers=key) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
        assert len({answer.text for answer in answers}) == 1
    after = await intake.stored()
    assert (after["submissions"] - before["submissions"], after["events"] - before["events"]) == (5, 5)


async def test_two_bodies_at_once_with_one_key_make_one_dossier_and_a_409(intake: Intake) -> None:
    before = await intake.stored()
    for _ in range(5):
        key = intake.key()
        answers = await asyncio.gather(
            *(intake.counter.post(PATH, json=example(copies=copies), headers=key) for copies in (1, 2))
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409]
    after = await intake.stored()
    assert after["submissions"] - before["submissions"] == 5


async def test_a_second_process_waits_for_the_first_request_in_flight(intake: Intake) -> None:
    """The test acts as another instance of intake, whose transaction holds the key and has not committed."""
    key = intake.key()
    accepted = await intake.submitted()
    async with intake.pool.acquire() as tx:
        transaction = tx.transaction()
        await transaction.start()
        await tx.execute(
            "insert into submissions (dossier_id, caller, idempotency_key, body_digest, procedure_code,"
            " procedure_version, receiving_agency, channel, submitted_at, trace_id, components)"
            " select gen_random_uuid(), 'counter', $2, body_digest, procedure_code, procedure_version,"
            " receiving_agency, channel, submitted_at, trace_id, components from submissions"
            " where dossier_id = $1::uuid",
            accepted["dossier_id"],
            key["Idempotency-Key"],
        )
        request = asyncio.create_task(intake.counter.post(PATH, json=example(), headers=key))

        async def it_waits() -> bool:
            return bool(
                await intake.pool.fetchval(
                    "select count(*) from pg_stat_activity where datname = current_database()"
                    " and wait_event_type = 'Lock' and query like '%insert into submissions%'"
                )
            )

        await wait_until(it_waits, 10)
        assert not request.done()
        await transaction.commit()
    answer = await request
    assert answer.status_code == 200
    assert answer.json()["dossier_id"] != accepted["dossier_id"]


async def test_a_retry_is_answered_as_the_first_time_though_the_procedure_has_closed(intake: Intake) -> None:
    key = intake.key()
    first = await intake.counter.post(PATH, json=example(), headers=key)
    closed = {**DOCUMENTS[BIRTH], "version": 2, "valid_to": "2025-08-24"}
    assert ProcedureRules(closed).version == 2
    await publish(intake.pool, {BIRTH: closed})
    try:

        async def is_closed() -> bool:
            return (await intake.submit(example())).status_code == 422

        await wait_until(is_closed, 10, every_s=0.05)
        again = await intake.counter.post(PATH, json=example(), headers=key)
        assert (again.status_code, again.json()) == (200, first.json())
        other = await intake.counter.post(PATH, json=example(copies=4), headers=key)
        assert_problem(other, 409, "idempotency-key-reused")
    finally:
        await publish(intake.pool, {BIRTH: {**documents()[BIRTH], "version": 3}})

        async def is_open() -> bool:
            return (await intake.submit(example())).status_code == 201

        await wait_until(is_open, 10, every_s=0.05)
