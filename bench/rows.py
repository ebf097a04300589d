"""Which rows a run left behind, so that nobody is measured on less work: a peer leaves what hoso would have left."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping

from bench.ground import Ground, one

LEDGERS = {"workflow": ("dossiers", "tasks"), "idlookup": ("requests",), "notify": ("notices",)}


class DifferentWork(RuntimeError):
    """A contender did not do the work that hoso did."""


async def rows_of_hoso(place: Ground) -> Counter[str]:
    """Of all dossiers of the stack: rows of each ledger, and events by their type."""
    rows: Counter[str] = Counter()
    for service, tables in LEDGERS.items():
        rows += await rows_in(place.dsn[service], tables)
    return rows


async def rows_of_peer(dsn: str) -> Counter[str]:
    return await rows_in(dsn, [table for tables in LEDGERS.values() for table in tables])


async def rows_in(dsn: str, tables: list[str] | tuple[str, ...]) -> Counter[str]:
    async with one(dsn) as connection:
        rows = Counter({table: int(await connection.fetchval(f"select count(*) from {table}")) for table in tables})
        found = await connection.fetch("select type, count(*) as n from events where dossier_id is not null group by 1")
        return rows + Counter({row["type"]: int(row["n"]) for row in found})


async def settled(place: Ground, dossiers: int, births: int, timeout_s: float = 30.0) -> Counter[str]:
    """hoso's rows, once the last number that was found is taken up."""
    deadline = time.monotonic() + timeout_s
    while (rows := await rows_of_hoso(place))["IdNumberIssued"] < births or rows["NoticeSent"] < dossiers:
        if time.monotonic() > deadline:
            raise DifferentWork(f"hoso did not come to an end: {dict(rows)}")
        await asyncio.sleep(0.1)
    return rows


async def require_same(
    ours: Mapping[str, int], dossiers: int, name: str, dsn: str, theirs: int, timeout_s: float = 30.0
) -> None:
    """Wait until a peer's `theirs` dossiers left, of everything, as many rows a dossier as our `dossiers`.

    Raises DifferentWork. Exact when both are multiples of ten, since one dossier in ten is a birth.
    """
    wanted = {kind: n * theirs // dossiers for kind, n in ours.items()}
    deadline = time.monotonic() + timeout_s
    while (rows := dict(await rows_of_peer(dsn))) != wanted:
        if time.monotonic() > deadline:
            raise DifferentWork(f"{name} left {rows}, hoso would have left {wanted}")
        await asyncio.sleep(0.1)
