"""Parked records: listed, shown without their content, replayed in order, or discarded by a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI

from shared.contract import envelope
from shared.contract.envelope import Received
from shared.contract.events import PROCEDURES, SUBMISSIONS, ProcedurePublished, WithdrawalRequested
from shared.http import problems
from shared.http.access import Access
from shared.http.body import dumps
from shared.inbox import parked
from shared.inbox.consumer import Consumer, Unappliable
from shared.outbox.publish import Outbox
from tests.fixtures.openapi import checks_answers
from tests.fixtures.services import TOKENS
from tests.shared import world
from tests.shared.records import foreign_record, record
from tests.shared.world import effects, held

if TYPE_CHECKING:
    from shared.postgres.pool import Pool
    from tests.fixtures.databases import MakePool


class Rule:
    """A rule that can be mended while the service runs."""

    mended = False

    def __call__(self, unit: world.Effects, event: Received) -> None:
        assert isinstance(event.fact, WithdrawalRequested)
        if event.fact.sealed_reason == "against the rule" and not self.mended:
            raise Unappliable("no-such-thing")
        unit.rows.append((event.dossier_id, event.sequence, event.fact.sealed_reason))


class Office:
    """One service's parked records, and an officer's client that checks every answer against the OpenAPI document."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.rule = Rule()
        self.procedures: list[int] = []
        handlers: Any = {WithdrawalRequested: self.rule, ProcedurePublished: self._publish}
        self.consumer: Consumer = world.consumer(pool, handlers=handlers)
        app = FastAPI()
        app.state.access = Access(dumps(TOKENS).decode())
        problems.install(app)
        app.include_router(parked.router(lambda: pool, Outbox(lambda: pool), self.consumer))
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app),
            base_url="http://service",
            headers={"Authorization": f"Bearer {TOKENS['ops']}", "X-Officer": "lan"},
            event_hooks=checks_answers("intake"),
        )

    def _publish(self, unit: world.Effects, event: Received) -> None:
        assert isinstance(event.fact, ProcedurePublished)
        if not self.rule.mended:
            raise KeyError("an old release")
        self.procedures.append(event.fact.version)

    async def ids(self) -> list[int]:
        return [row["id"] for row in (await self.client.get("/v1/parked")).json()["items"]]

    async def replay(self, number: int) -> httpx2.Response:
        return await self.client.post(f"/v1/parked/{number}/replay")

    async def discard(self, number: int) -> httpx2.Response:
        return await self.client.post(f"/v1/parked/{number}/discard", json={"reason": "double by mistake"})


@pytest_asyncio.fixture
async def office(make_pool: MakePool) -> AsyncIterator[Office]:
    pool = await make_pool("shared")
    await pool.execute(world.TABLE)
    made = Office(pool)
    yield made
    await made.client.aclose()


async def park_second(office: Office, note: str = "against the rule") -> UUID:
    """A dossier whose second event is parked and whose third and fourth are held behind it."""
    dossier_id = uuid4()
    notes = {1: "", 2: note, 3: "", 4: ""}
    await office.consumer.apply([record(dossier_id, n, text) for n, text in notes.items()])
    assert await held(office.pool) == {(dossier_id, 3): "behind", (dossier_id, 4): "behind"}
    return dossier_id


async def test_a_parked_record_is_listed_without_its_content(office: Office) -> None:
    dossier_id = await park_second(office)
    (item,) = (await office.client.get("/v1/parked")).json()["items"]
    assert (item["dossier_id"], item["sequence"], item["reason"]) == (str(dossier_id), 2, "no-such-thing")
    shown = (await office.client.get(f"/v1/parked/{item['id']}")).json()
    assert shown["held"] == 2
    assert "against the rule" not in str(shown)


async def test_what_is_parked_is_counted_once_by_its_topic_and_reason(office: Office) -> None:
    batch = [foreign_record("no headers"), record(uuid4(), 1, "against the rule"), record(uuid4(), 1)]
    for _ in range(2):
        await office.consumer.apply(batch)
    parked_total = office.consumer._metrics.parked
    counted = {row.labels["reason"]: row.value for row in parked_total.collect()[0].samples if "_total" in row.name}
    assert counted == {"no-envelope": 1, "no-such-thing": 1}
    assert {row.labels["topic"] for row in parked_total.collect()[0].samples} == {SUBMISSIONS}


async def test_replay_applies_the_event_and_what_is_held_behind_it_in_order(office: Office) -> None:
    dossier_id = await park_second(office)
    office.rule.mended = True
    answer = await office.replay((await office.ids())[0])
    assert answer.json()["state"] == "replayed"
    assert await effects(office.pool) == [(dossier_id, n) for n in (1, 2, 3, 4)]
    assert await held(office.pool) == {}
    assert await office.ids() == []


async def test_a_poison_in_a_batch_of_500_parks_alone_and_its_dossier_goes_on_in_order_after_a_replay(
    office: Office,
) -> None:
    dossiers = [uuid4() for _ in range(100)]
    bad = dossiers[41]
    batch = [record(d, n, "against the rule" if (d, n) == (bad, 2) else "") for n in range(1, 6) for d in dossiers]
    await office.consumer.apply(batch)
    assert await world.parked(office.pool) == [(bad, 2, "no-such-thing")]
    assert await held(office.pool) == {(bad, n): "behind" for n in (3, 4, 5)}
    assert len(await effects(office.pool)) == 500 - 4
    await office.consumer.apply([record(bad, 6)])
    office.rule.mended = True
    (number,) = await office.ids()
    assert (await office.replay(number)).status_code == 200
    assert [n for d, n in await effects(office.pool) if d == bad] == [1, 2, 3, 4, 5, 6]
    assert (await held(office.pool), await world.doubles(office.pool)) == ({}, 0)


async def test_replay_of_what_still_fails_changes_nothing(office: Office) -> None:
    await park_second(office)
    (number,) = await office.ids()
    answer = await office.replay(number)
    assert (answer.status_code, answer.json()["code"]) == (409, "still-cannot-be-applied")
    assert await office.ids() == [number]
    assert len(await effects(office.pool)) == 1


async def test_replay_of_what_cannot_be_stored_says_so(office: Office) -> None:
    await park_second(office, "cannot be stored")
    answer = await office.replay((await office.ids())[0])
    assert (answer.status_code, answer.json()["reason"]) == (409, "data")


async def test_a_dossier_goes_on_without_a_discarded_event(office: Office) -> None:
    dossier_id = await park_second(office)
    answer = await office.discard((await office.ids())[0])
    assert answer.json()["state"] == "discarded"
    assert await effects(office.pool) == [(dossier_id, n) for n in (1, 3, 4)]
    row = await office.pool.fetchrow("select state, settled_why from parked")
    assert tuple(row or ()) == ("discarded", "lan: double by mistake")


async def test_when_the_process_dies_between_discard_and_drain_what_is_held_is_looked_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing parked is before it any more. With the reason `behind` nobody would look for it."""
    dossier_id = await park_second(office)

    async def dies(_: Any) -> None: ...

    monkeypatch.setattr(office.consumer, "drain", dies)
    await office.discard((await office.ids())[0])
    assert await held(office.pool) == {(dossier_id, 3): "gap", (dossier_id, 4): "gap"}


async def test_a_stranger_that_a_later_release_understands_blocks_its_dossier_when_it_is_poison(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parked first as a record of no stream; when it is read again, it is parked in its place and blocks."""
    dossier_id = uuid4()
    poison = record(dossier_id, 2, "against the rule")
    monkeypatch.setattr(envelope, "source_of", lambda _: "/another/name")
    await office.consumer.apply([poison])
    monkeypatch.undo()
    await office.consumer.apply([record(dossier_id, 1), poison, record(dossier_id, 3)])
    assert await held(office.pool) == {(dossier_id, 3): "behind"}
    (number,) = await office.ids()
    await office.discard(number)
    assert await effects(office.pool) == [(dossier_id, 1), (dossier_id, 3)]


async def test_a_discarded_record_that_is_sent_again_is_a_repeat(office: Office) -> None:
    dossier_id = uuid4()
    bad = record(dossier_id, 1, "against the rule")
    await office.consumer.apply([bad])
    await office.discard((await office.ids())[0])
    await office.consumer.apply([bad, record(dossier_id, 2)])
    assert await office.ids() == []
    assert await effects(office.pool) == [(dossier_id, 2)]


async def test_the_next_poison_behind_a_replayed_one_is_parked_in_its_turn(office: Office) -> None:
    dossier_id = uuid4()
    notes = {1: "against the rule", 2: "", 3: "cannot be stored", 4: ""}
    await office.consumer.apply([record(dossier_id, n, text) for n, text in notes.items()])
    office.rule.mended = True
    assert (await office.replay((await office.ids())[0])).status_code == 200
    assert await effects(office.pool) == [(dossier_id, 1), (dossier_id, 2)]
    assert await world.parked(office.pool) == [(dossier_id, 3, "data")]
    assert await held(office.pool) == {(dossier_id, 4): "behind"}


async def test_a_gap_behind_a_discarded_one_counts_as_a_gap_again(office: Office) -> None:
    dossier_id = uuid4()
    await office.consumer.apply([record(dossier_id, 1, "against the rule"), record(dossier_id, 3)])
    assert await held(office.pool) == {(dossier_id, 3): "behind"}
    await office.discard((await office.ids())[0])
    assert await held(office.pool) == {(dossier_id, 3): "gap"}
    await office.consumer.apply([record(dossier_id, 2)])
    assert await effects(office.pool) == [(dossier_id, 2), (dossier_id, 3)]


async def test_a_record_outside_any_sequence_can_be_replayed(office: Office) -> None:
    fact = ProcedurePublished(code="1.1", version=3, procedure={})
    published = record(uuid4(), 3, fact=fact, topic=PROCEDURES, key=b"1.1", headers={"ce_subject": b"1.1"})
    await office.consumer.apply([published])
    (number,) = await office.ids()
    assert (await office.replay(number)).status_code == 409
    office.rule.mended = True
    assert (await office.replay(number)).status_code == 200
    assert office.procedures == [3]
    assert await office.ids() == []


async def test_a_stranger_can_be_discarded_but_not_replayed(office: Office) -> None:
    await office.consumer.apply([foreign_record()])
    (number,) = await office.ids()
    assert (await office.replay(number)).json()["reason"] == "no-envelope"
    assert (await office.discard(number)).status_code == 200


async def test_a_second_event_with_the_same_sequence_can_never_be_replayed(office: Office) -> None:
    dossier_id = uuid4()
    await office.consumer.apply([record(dossier_id, 1), record(dossier_id, 1)])
    (number,) = await office.ids()
    assert (await office.replay(number)).json()["reason"] == "identity-conflict"
    assert len(await effects(office.pool)) == 1


async def test_of_several_officers_at_once_one_decides(office: Office) -> None:
    dossier_id = await park_second(office)
    office.rule.mended = True
    (number,) = await office.ids()
    answers = await asyncio.gather(*(office.replay(number) for _ in range(4)), office.discard(number))
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404, 404]
    done = [n for d, n in await effects(office.pool) if d == dossier_id]
    assert done in ([1, 2, 3, 4], [1, 3, 4])


async def test_only_ops_may_call_it_and_wrong_requests_are_refused(office: Office) -> None:
    counter = {"Authorization": f"Bearer {TOKENS['counter']}"}
    assert (await office.client.get("/v1/parked", headers=counter)).status_code == 403
    assert (await office.client.get("/v1/parked", headers={"Authorization": ""})).status_code == 401
    assert (await office.client.get("/v1/parked/999")).status_code == 404
    assert (await office.client.post("/v1/parked/999/replay")).status_code == 404
    assert (await office.client.post("/v1/parked/1/discard", json={"reason": "x"})).status_code == 422
    assert (await office.client.get("/v1/parked/99999999999999999999")).status_code == 422


async def test_the_next_page_of_the_list_begins_where_the_last_one_ended(office: Office) -> None:
    await office.consumer.apply([foreign_record(str(n)) for n in range(5)])
    for junk in ("junk", "-1", "1.5", "%C2%B2", str(2**63)):
        answer = await office.client.get(f"/v1/parked?after={junk}")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-cursor")
    first = (await office.client.get("/v1/parked?limit=3")).json()
    rest = (await office.client.get(f"/v1/parked?limit=3&after={first['next']}")).json()
    assert [len(first["items"]), len(rest["items"]), rest["next"]] == [3, 2, None]
