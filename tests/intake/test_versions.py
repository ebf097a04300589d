"""Intake's copy keeps every version it hears, and a submission is checked by the one that stands on the office day."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from services.intake.catalogue import ProcedureCatalogue
from services.intake.handlers import on_procedure_published
from services.intake.store import ProcedureWork
from shared.clock import wall_now
from shared.contract.envelope import Received, Record, headers_of, new_id, parse
from shared.contract.events import PROCEDURES, ProcedurePublished
from shared.contract.partitions import lane_of
from shared.postgres.writes import Writes
from tests.fixtures.databases import MakePool
from tests.intake.conftest import BIRTH, DOCUMENTS, OFFICE0, PACKAGES

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

TODAY = datetime.fromisoformat(OFFICE0).date()


async def hear(pool: Pool, *versions: dict[str, Any]) -> None:
    """One batch of what workflow published."""
    work = ProcedureWork()
    for document in versions:
        on_procedure_published(work, received(document))
    async with pool.acquire() as tx, tx.transaction():
        writes = Writes()
        await work.save(tx, writes)
        await writes.run(tx)


def received(document: dict[str, Any]) -> Received:
    fact = ProcedurePublished(code=BIRTH, version=document["version"], procedure=document)
    headers = headers_of(
        topic=PROCEDURES,
        subject=BIRTH,
        sequence=fact.version,
        ce_id=new_id(),
        type="ProcedurePublished",
        trace_id=new_id(),
        recorded_at=wall_now(),
    )
    return parse(Record(PROCEDURES, lane_of(BIRTH), 0, BIRTH.encode(), tuple(headers), fact.to_json(), wall_now()))


async def test_a_version_that_comes_early_stands_beside_the_one_in_force_until_its_day(make_pool: MakePool) -> None:
    pool = await make_pool(*PACKAGES)
    now, coming = DOCUMENTS[BIRTH], {**DOCUMENTS[BIRTH], "version": 2, "valid_from": "2025-09-01"}
    await hear(pool, now, coming, now)
    await hear(pool, coming)
    known = ProcedureCatalogue()
    await known.refresh(pool)
    found = [known.find(BIRTH, day) for day in (TODAY, date(2025, 8, 31), date(2025, 9, 1))]
    assert [rules and rules.version for rules in found] == [1, 1, 2]


async def test_who_heard_the_later_version_first_still_learns_the_one_in_force(make_pool: MakePool) -> None:
    pool = await make_pool(*PACKAGES)
    known = ProcedureCatalogue()
    await hear(pool, {**DOCUMENTS[BIRTH], "version": 2, "valid_from": "2025-09-01"})
    await known.refresh(pool)
    await hear(pool, DOCUMENTS[BIRTH])
    await known.refresh(pool)
    found = known.find(BIRTH, TODAY)
    assert found is not None
    assert found.version == 1
