"""PostgreSQL's own limit: the very rows of a run of ours, inserted again into the same tables with the same indexes.

500 rows a transaction by `unnest`, over two connections, into a database of their own on the same server. What lay in
intake's log before the run began is left out; rows that our run changed later are inserted once, as they ended.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import asyncpg

from bench.ground import Ground, one
from shared.database import migrate

ROWS = 500
CONNECTIONS = 2
TABLES = {
    "intake": ("sent",),
    "workflow": ("dossiers", "tasks", "heads", "applied", "events", "sent", "notices_awaited", "timers"),
    "idlookup": ("dossiers", "requests", "heads", "applied", "events", "sent"),
    "notify": ("dossiers", "notices", "heads", "applied", "events", "sent"),
}


@dataclass(frozen=True)
class Insert:
    """One statement and all its rows' columns, cut in transactions."""

    statement: str
    parts: list[list[list[Any]]]


async def measure(place: Ground, dossiers: int) -> float:
    """Dossiers a second: `dossiers` is how many the stored rows of the stack's databases came from."""
    seconds = 0.0
    for service, tables in TABLES.items():
        name = f"limit_{service}"
        place.stack.postgres.drop_database(name)
        dsn = place.stack.postgres.ensure_service_database(name)
        async with asyncpg.create_pool(dsn, min_size=1, max_size=CONNECTIONS) as pool:
            await migrate(pool, ["shared", f"services.{service}"])
            await pool.execute("truncate lanes")
            async with one(place.dsn[service]) as source:
                inserts = [await _read(source, table) for table in tables]
            work: asyncio.Queue[tuple[str, list[list[Any]]]] = asyncio.Queue()
            # Tables take turns, as they do in a batch of ours.
            for turn in range(max(len(insert.parts) for insert in inserts)):
                for insert in inserts:
                    if turn < len(insert.parts):
                        work.put_nowait((insert.statement, insert.parts[turn]))
            started = time.perf_counter()
            await asyncio.gather(*(_insert(pool, work) for _ in range(CONNECTIONS)))
            seconds += time.perf_counter() - started
        place.stack.postgres.drop_database(name)
    return dossiers / seconds


async def _insert(pool: asyncpg.Pool[asyncpg.Record], work: asyncio.Queue[tuple[str, list[list[Any]]]]) -> None:
    async with pool.acquire() as connection:
        while not work.empty():
            statement, columns = work.get_nowait()
            async with connection.transaction():
                await connection.execute(statement, *columns)


async def _read(source: asyncpg.Connection[asyncpg.Record], table: str) -> Insert:
    columns = await source.fetch(
        "select attname::text as name, format_type(atttypid, null) as type from pg_attribute"
        " where attrelid = $1::text::regclass and attnum > 0 and not attisdropped order by attnum",
        table,
    )
    # unnest would flatten a column of arrays: those travel as text.
    shown = [f"{c['name']}::text" if c["type"].endswith("[]") else c["name"] for c in columns]
    rows = [tuple(row) for row in await source.fetch(f"select {', '.join(shown)} from {table}")]
    given = [f"${n}::{'text' if c['type'].endswith('[]') else c['type']}[]" for n, c in enumerate(columns, 1)]
    names = [f"c{n}" for n in range(len(columns))]
    back = [f"{n}::{c['type']}" if c["type"].endswith("[]") else n for n, c in zip(names, columns, strict=True)]
    statement = (
        f"insert into {table} ({', '.join(c['name'] for c in columns)}) overriding system value"
        f" select {', '.join(back)} from unnest({', '.join(given)}) as r ({', '.join(names)})"
    )
    chunks = [rows[first : first + ROWS] for first in range(0, len(rows), ROWS)]
    return Insert(statement, [[list(column) for column in zip(*chunk, strict=True)] for chunk in chunks])
