"""Intake keeps every version of a procedure, and checks a submission by the one in force on the office day."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from services.intake.catalogue import ProcedureCatalogue
from services.intake.handlers import on_procedure_published
from services.intake.store import ProcedureUnit
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


async def consume(pool: Pool, *versions: dict[str, Any]) -> None:
    """One batch of published versions."""
    unit = ProcedureUnit()
    for document in versions:
        on_procedure_published(unit, received(document))
    async with pool.acquire() as tx, tx.transaction():
        writes = Writes()
        await unit.save(tx, writes)
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


async def test_a_version_published_early_is_kept_beside_the_one_in_force_until_its_day(make_pool: MakePool) -> None:
    pool = await make_pool(*PACKAGES)
    now, coming = DOCUMENTS[BIRTH], {**DOCUMENTS[BIRTH], "version": 2, "valid_from": "2025-09-01"}
    await consume(pool, now, coming, now)
    await consume(pool, coming)
    catalogue = ProcedureCatalogue()
    await catalogue.refresh(pool)
    in_force = [catalogue.find(BIRTH, day) for day in (TODAY, date(2025, 8, 31), date(2025, 9, 1))]
    assert [rules and rules.version for rules in in_force] == [1, 1, 2]


async def test_the_version_in_force_is_learned_even_when_a_later_one_arrives_first(make_pool: MakePool) -> None:
    pool = await make_pool(*PACKAGES)
    catalogue = ProcedureCatalogue()
    await consume(pool, {**DOCUMENTS[BIRTH], "version": 2, "valid_from": "2025-09-01"})
    await catalogue.refresh(pool)
    await consume(pool, DOCUMENTS[BIRTH])
    await catalogue.refresh(pool)
    rules = catalogue.find(BIRTH, TODAY)
    assert rules is not None
    assert rules.version == 1
