"""The order in which a transaction of workflow locks: while it waits for one lock, it holds none of the later ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.workflow import store
from services.workflow.store import Needs
from tests.fixtures.waiting import wait_until
from tests.workflow.conftest import Desk
from tests.workflow.lifecycle_scenes import COPIES
from tests.workflow.test_together import WAITING

AGENCIES = [f"H44.{n:03d}" for n in range(8)]
KINDS = ["another_kind", "land_certificate"]
FIRST_DOSSIER = "select 1 from dossiers order by dossier_id limit 1 for update"
FIRST_COUNTER = "select 1 from code_counters where agency = any($1::text[]) order by agency limit 1 for update"
MODE = "select 1 from intake_modes where code = $1 for update"
FIRST_BLANKS = "select 1 from blanks order by kind, serial_from limit 1 for update"


async def list_free(desk: Desk) -> list[int]:
    """How many dossiers, counters and boxes of blanks are not locked."""
    count = "select count(*) from (select 1 from {} for update skip locked) found"
    tables = ("dossiers", "code_counters where agency like 'H44.0%'", "blanks")
    return [await desk.pool.fetchval(count.format(table)) for table in tables]


@pytest.mark.parametrize(
    ("held", "values", "free"),
    [
        (FIRST_DOSSIER, [], [7, 8, 4]),
        (MODE, [COPIES], [0, 8, 4]),
        (FIRST_COUNTER, [AGENCIES], [0, 7, 4]),
        (FIRST_BLANKS, [], [0, 0, 3]),
    ],
)
async def test_dossiers_by_id_come_before_modes_then_counters_then_blanks(
    desk: Desk, held: str, values: list[Any], free: list[int]
) -> None:
    dossiers = [await desk.submit(COPIES) for _ in range(8)]
    for kind in KINDS:
        for first in (1, 100):
            await desk.put_blanks(kind, first, first + 9)

    async def open_and_leave() -> None:
        async with desk.pool.acquire() as tx, tx.transaction():
            # Whatever order it is asked in.
            needs = Needs(procedures=[COPIES], code_today=reversed(AGENCIES), blanks=reversed(KINDS))
            await store.open_unit(tx, desk.app, reversed(dossiers), needs)

    await open_and_leave()
    assert await list_free(desk) == [8, 8, 4]
    async with desk.pool.acquire() as holder, holder.transaction():
        await holder.fetch(held, *values)
        opening = asyncio.create_task(open_and_leave())
        await wait_until(lambda: desk.pool.fetchval(WAITING))
        assert await list_free(desk) == free
    await asyncio.wait_for(opening, 10)
