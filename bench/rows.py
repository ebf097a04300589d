"""Counts the rows that a run left, to check that a peer did the same work as hoso."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import NamedTuple

from bench.testbed import Testbed, connect

LEDGERS = {"workflow": ("dossiers", "tasks"), "idlookup": ("requests",), "notify": ("notices",)}


class DifferentWork(RuntimeError):
    """A contender did not do the same work as hoso."""


class Work(NamedTuple):
    """The rows that `dossiers` dossiers of hoso left."""

    rows: Counter[str]
    dossiers: int


async def rows_of_hoso(testbed: Testbed) -> Counter[str]:
    """Return the rows of each ledger and the events by type, of all dossiers of the stack."""
    rows: Counter[str] = Counter()
    for service, tables in LEDGERS.items():
        rows += await rows_in(testbed.dsn[service], tables)
    return rows


async def rows_of_peer(dsn: str) -> Counter[str]:
    return await rows_in(dsn, [table for tables in LEDGERS.values() for table in tables])


async def rows_in(dsn: str, tables: list[str] | tuple[str, ...]) -> Counter[str]:
    async with connect(dsn) as connection:
        rows = Counter({table: int(await connection.fetchval(f"select count(*) from {table}")) for table in tables})
        types = await connection.fetch("select type, count(*) as n from events where dossier_id is not null group by 1")
        return rows + Counter({row["type"]: int(row["n"]) for row in types})


async def finished_work(testbed: Testbed, dossiers: int, births: int, timeout_s: float = 30.0) -> Work:
    """Wait until workflow has applied the last number that was found, and return hoso's rows."""
    deadline = time.monotonic() + timeout_s
    while (rows := await rows_of_hoso(testbed))["IdNumberIssued"] < births or rows["NoticeSent"] < dossiers:
        if time.monotonic() > deadline:
            raise DifferentWork(f"hoso did not finish: {dict(rows)}")
        await asyncio.sleep(0.1)
    return Work(rows, dossiers)


async def require_same(work: Work, name: str, dsn: str, dossiers: int, timeout_s: float = 30.0) -> None:
    """Wait until a peer's `dossiers` left the same rows per dossier as those of hoso in `work`, of every kind.

    Exact when both are multiples of ten, because one dossier in ten is a birth. Raises DifferentWork.
    """
    wanted = {kind: n * dossiers // work.dossiers for kind, n in work.rows.items()}
    deadline = time.monotonic() + timeout_s
    while (rows := dict(await rows_of_peer(dsn))) != wanted:
        if time.monotonic() > deadline:
            raise DifferentWork(f"{name} left {rows}, hoso would have left {wanted}")
        await asyncio.sleep(0.1)
