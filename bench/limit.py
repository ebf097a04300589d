"""PostgreSQL's own limit: the very rows of a run of ours, inserted again into the same tables with the same indexes.

500 rows a transaction by `unnest`, over two connections, into a database of their own on the same server. What lay in
intake's log before the run began is left out; rows that our run changed later are inserted once, as they ended. Only
the inserting counts: the rows are read beforehand, a slice at a time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from bench.ground import Ground, one
from shared.postgres.migrate import migrate

ROWS = 500
CONNECTIONS = 2
SLICE = 20
"""Transactions of each table that are read at once."""
TABLES = {
    "intake": ("sent",),
    "workflow": ("dossiers", "tasks", "heads", "applied", "events", "sent", "notices_awaited", "timers"),
    "idlookup": ("dossiers", "requests", "heads", "applied", "events", "sent"),
    "notify": ("dossiers", "notices", "heads", "applied", "events", "sent"),
}


class Copied:
    """One table: its rows, read on from a cursor, and the statement that inserts them."""

    def __init__(self, insert: str, cursor: Any) -> None:
        self.insert, self._cursor = insert, cursor

    async def next_slice(self) -> list[list[list[Any]]]:
        """The columns of up to `SLICE` transactions; empty at the end."""
        rows = [tuple(row) for row in await self._cursor.fetch(ROWS * SLICE)]
        chunks = [rows[first : first + ROWS] for first in range(0, len(rows), ROWS)]
        return [[list(column) for column in zip(*chunk, strict=True)] for chunk in chunks]


async def measure(place: Ground, dossiers: int) -> float:
    """Dossiers a second: `dossiers` is how many the stored rows of the stack's databases came from."""
    seconds = 0.0
    for service, tables in TABLES.items():
        name = f"limit_{service}"
        place.stack.postgres.drop_database(name)
        dsn = place.stack.postgres.ensure_service_database(name)
        async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
            await migrate(pool, ["shared", f"services.{service}"])
            await pool.execute("truncate lanes")
            async with one(place.dsn[service]) as source, source.transaction():
                copied = [await _copied(source, table) for table in tables]
                while any(slices := [await table.next_slice() for table in copied]):
                    work: asyncio.Queue[tuple[str, list[list[Any]]]] = asyncio.Queue()
                    # Tables take turns, as they do in a batch of ours.
                    for turn in range(SLICE):
                        for table, parts in zip(copied, slices, strict=True):
                            if turn < len(parts):
                                work.put_nowait((table.insert, parts[turn]))
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


async def _copied(source: asyncpg.Connection[asyncpg.Record], table: str) -> Copied:
    columns = await source.fetch(
        "select attname::text as name, format_type(atttypid, null) as type from pg_attribute"
        " where attrelid = $1::text::regclass and attnum > 0 and not attisdropped order by attnum",
        table,
    )
    # unnest would flatten a column of arrays: those travel as text.
    shown = [f"{c['name']}::text" if c["type"].endswith("[]") else c["name"] for c in columns]
    given = [f"${n}::{'text' if c['type'].endswith('[]') else c['type']}[]" for n, c in enumerate(columns, 1)]
    names = [f"c{n}" for n in range(len(columns))]
    back = [f"{n}::{c['type']}" if c["type"].endswith("[]") else n for n, c in zip(names, columns, strict=True)]
    insert = (
        f"insert into {table} ({', '.join(c['name'] for c in columns)}) overriding system value"
        f" select {', '.join(back)} from unnest({', '.join(given)}) as r ({', '.join(names)})"
    )
    return Copied(insert, await source.cursor(f"select {', '.join(shown)} from {table}"))
