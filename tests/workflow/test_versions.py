"""Which version of a procedure is in force, and that each change is published once (docs/decisions/0010)."""

from __future__ import annotations

import asyncio
from datetime import date

from services.workflow.catalogue import ProcedureCatalogue
from services.workflow.publishing import publish_due_versions, seed
from tests.fixtures.waiting import wait_until
from tests.workflow.conftest import Desk
from tests.workflow.lifecycle_scenes import COPIES
from tests.workflow.test_rules_api import published, put


async def test_before_any_version_has_begun_the_one_that_begins_first_is_shown_and_none_is_in_force(desk: Desk) -> None:
    document = await desk.get(f"/v1/procedures/{COPIES}")
    example = {**document["example"], "procedure_code": "9.000001"}
    new = {**document, "code": "9.000001", "example": example, "valid_from": "2025-10-01"}
    assert (await put(desk, new)).json()["version"] == 1
    assert (await put(desk, {**new, "valid_from": "2025-09-01"})).json()["version"] == 2
    assert (await put(desk, {**new, "valid_from": "2025-12-01"})).json()["version"] == 3
    assert (await desk.get("/v1/procedures/9.000001"))["version"] == 2
    assert await published(desk, "9.000001") == [1, 2, 3, 2]
    catalogue: ProcedureCatalogue = desk.app.catalogue
    assert catalogue.in_force("9.000001", date(2025, 8, 31)) is None
    assert (catalogue.in_force("9.000001", date(2025, 9, 1)) or new) == catalogue.current("9.000001")


async def test_a_rule_that_is_put_back_as_it_was_is_the_next_version(desk: Desk) -> None:
    """The replaced version is not in force again: dossiers that were received in between name the later one."""
    document = await desk.get(f"/v1/procedures/{COPIES}")
    await put(desk, {**document, "fee": {"per_case": 7_000}})
    assert (await put(desk, document)).json() == {**document, "version": 3}
    assert await desk.get(f"/v1/procedures/{COPIES}") == {**document, "version": 3}
    assert await published(desk, COPIES) == [1, 2, 3]


async def test_of_two_instances_that_see_a_versions_first_day_at_once_one_publishes_it(desk: Desk) -> None:
    other = Desk(desk.pool)
    await seed(other.app)
    document = await desk.get(f"/v1/procedures/{COPIES}")
    await put(desk, {**document, "valid_from": "2025-09-01", "fee": {"per_case": 7_000}})
    for each in (desk, other):
        each.set_clock("2025-09-01T00:00:01+07:00")

    async def both_wait() -> bool:
        return bool(
            await desk.pool.fetchval(
                "select count(*) = 2 from pg_locks where locktype = 'advisory' and not granted"
                " and database = (select oid from pg_database where datname = current_database())"
            )
        )

    async with desk.pool.acquire() as tx, tx.transaction():
        await tx.execute("select pg_advisory_xact_lock(3, 0)")
        looking = [asyncio.create_task(publish_due_versions(each.app)) for each in (desk, other)]
        await wait_until(both_wait)
    await asyncio.wait_for(asyncio.gather(*looking), 10)
    await other.http.aclose()
    assert await published(desk, COPIES) == [1, 2, 1, 2]


async def test_of_two_instances_that_change_a_rule_at_once_each_makes_a_version(desk: Desk) -> None:
    other = Desk(desk.pool)
    await seed(other.app)
    document = await desk.get(f"/v1/procedures/{COPIES}")
    changes = [{**document, "fee": {"per_case": 1_000 * n}} for n in range(1, 7)]
    answers = await asyncio.gather(*(put((desk, other)[n % 2], changes[n]) for n in range(6)))
    await other.http.aclose()
    assert [answer.status_code for answer in answers] == [200] * 6
    assert await published(desk, COPIES) == [1, 2, 3, 4, 5, 6, 7]
