"""PostgreSQL's own limit: the rows of a hoso run, inserted again into the same tables with the same indexes.

500 rows per transaction with `unnest`, over two connections, into separate databases on the same server. Rows already
in intake's log before the run are left out; rows that the run changed are inserted once, in their last state. Only
the inserts are timed: the rows are read before, one slice at a time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

from bench.testbed import Testbed, connect
from shared.postgres.migrate import migrate

ROWS = 500
CONNECTIONS = 2
SLICE = 20
"""Number of transactions per table that are read at once."""
TABLES = {
    "intake": ("sent",),
    "workflow": ("dossiers", "tasks", "heads", "applied", "events", "sent", "notices_awaited", "timers"),
    "idlookup": ("dossiers", "requests", "heads", "applied", "events", "sent"),
    "notify": ("dossiers", "notices", "heads", "applied", "events", "sent"),
}


class TableCopy:
    """One table: a cursor over its rows, and the statement that inserts them."""

    def __init__(self, insert: str, cursor: Any) -> None:
        self.insert, self._cursor = insert, cursor

    async def next_slice(self) -> list[list[list[Any]]]:
        """Return the columns of up to SLICE transactions; empty at the end."""
        rows = [tuple(row) for row in await self._cursor.fetch(ROWS * SLICE)]
        chunks = [rows[first : first + ROWS] for first in range(0, len(rows), ROWS)]
        return [[list(column) for column in zip(*chunk, strict=True)] for chunk in chunks]


async def measure(testbed: Testbed, dossiers: int) -> float:
    """Return dossiers per second. `dossiers`: how many dossiers the rows in the stack's databases come from."""
    seconds = 0.0
    for service, tables in TABLES.items():
        name = f"limit_{service}"
        testbed.stack.postgres.drop_database(name)
        dsn = testbed.stack.postgres.ensure_service_database(name)
        async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
            await migrate(pool, ["shared", f"services.{service}"])
            await pool.execute("truncate lanes")
            async with connect(testbed.dsn[service]) as source, source.transaction():
                copies = [await _open_copy(source, table) for table in tables]
                while any(slices := [await copy.next_slice() for copy in copies]):
                    work: asyncio.Queue[tuple[str, list[list[Any]]]] = asyncio.Queue()
                    # The tables take turns, as in a batch of hoso.
                    for turn in range(SLICE):
                        for copy, parts in zip(copies, slices, strict=True):
                            if turn < len(parts):
                                work.put_nowait((copy.insert, parts[turn]))
                    started = time.perf_counter()
                    await asyncio.gather(*(_insert(pool, work) for _ in range(CONNECTIONS)))
                    seconds += time.perf_counter() - started
        testbed.stack.postgres.drop_database(name)
    return dossiers / seconds


async def _insert(pool: asyncpg.Pool[asyncpg.Record], work: asyncio.Queue[tuple[str, list[list[Any]]]]) -> None:
    async with pool.acquire() as connection:
        while not work.empty():
            statement, columns = work.get_nowait()
            async with connection.transaction():
                await connection.execute(statement, *columns)


async def _open_copy(source: asyncpg.Connection[asyncpg.Record], table: str) -> TableCopy:
    columns = await source.fetch(
        "select attname::text as name, format_type(atttypid, null) as type from pg_attribute"
        " where attrelid = $1::text::regclass and attnum > 0 and not attisdropped order by attnum",
        table,
    )
    # unnest flattens a column of arrays, so arrays are passed as text.
    selected = [f"{c['name']}::text" if c["type"].endswith("[]") else c["name"] for c in columns]
    parameters = [f"${n}::{'text' if c['type'].endswith('[]') else c['type']}[]" for n, c in enumerate(columns, 1)]
    names = [f"c{n}" for n in range(len(columns))]
    converted = [f"{n}::{c['type']}" if c["type"].endswith("[]") else n for n, c in zip(names, columns, strict=True)]
    insert = (
        f"insert into {table} ({', '.join(c['name'] for c in columns)}) overriding system value"
        f" select {', '.join(converted)} from unnest({', '.join(parameters)}) as r ({', '.join(names)})"
    )
    return TableCopy(insert, await source.cursor(f"select {', '.join(selected)} from {table}"))
