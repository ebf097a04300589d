"""Reads the `proof` schemas of the four services into the notebook, and nothing else of their databases.

The first round reads what was published (submissions, events), the second round its effects (applied, held, parked,
notices, requests). Each round reads each database in one read-only snapshot. So an event is read before its effects,
and work in progress cannot look like a loss. In the first round intake is read first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import asyncpg

from deploy.verify.notebook import Notebook

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

SERVICES = ("intake", "workflow", "idlookup", "notify")
PAGE = 5_000

FIRST_ROUND: dict[str, tuple[str, ...]] = {
    "intake": ("submissions", "events"),
    "workflow": ("events",),
    "idlookup": ("events",),
    "notify": ("events",),
}
SECOND_ROUND: dict[str, tuple[str, ...]] = {
    "intake": (),
    "workflow": ("applied", "held", "parked", "recorded"),
    "idlookup": ("applied", "held", "parked", "id_requests", "outcomes"),
    "notify": ("applied", "held", "parked", "notices", "outcomes"),
}
"""Which views each service must have. `recorded` and `outcomes` are selections from proof.events."""

COLUMNS: dict[str, str] = {
    "submissions": "dossier_id",
    "events": (
        "topic::text, dossier_id, sequence, ce_id, type,"
        " extract(epoch from clock_timestamp() - sent_at)::float8 as sent_age"
    ),
    "applied": "topic::text, dossier_id, sequence, times",
    "held": "topic::text, dossier_id, sequence, reason",
    "parked": "topic::text, dossier_id, sequence, ce_id, reason",
    "notices": "notice_id::uuid, dossier_id, kind, channel, state",
    "id_requests": (
        "request_key::uuid, kind, state, dossier_id, extract(epoch from clock_timestamp() - due_at)::float8 as due_age"
    ),
}
QUERIES = {name: f"select {columns} from proof.{name}" for name, columns in COLUMNS.items()} | {
    "recorded": "select distinct dossier_id from proof.events where type in ('DossierRecorded', $1)",
    "outcomes": "select dossier_id, type, count(*) from proof.events group by dossier_id, type",
}
BY_SERVICE = frozenset({"events", "applied", "held", "parked", "outcomes"})
"""Tables of the notebook whose first column is the service."""


class Unreadable(Exception):
    """A database or one of its proof views cannot be read. The others alone do not give the figures."""


async def read_databases(notebook: Notebook, dsns: dict[str, str]) -> dict[str, dict[str, int]]:
    """Fill the notebook. Returns the number of rows per service and table. Raises Unreadable."""
    counts: dict[str, dict[str, int]] = {service: {} for service in SERVICES}
    connections: dict[str, Connection] = {}
    try:
        for service in SERVICES:
            connections[service] = await _connect(service, dsns.get(service, ""))
        for service in SERVICES:
            counts[service] |= await _read(notebook, service, connections[service], FIRST_ROUND[service])
        for service in SERVICES:
            counts[service] |= await _read(notebook, service, connections[service], SECOND_ROUND[service])
    finally:
        await asyncio.gather(*(connection.close() for connection in connections.values()), return_exceptions=True)
    return counts


async def _connect(service: str, dsn: str) -> Connection:
    if not dsn:
        raise Unreadable(f"Không có địa chỉ cơ sở dữ liệu. / No database is named for {service}.")
    try:
        return await asyncpg.connect(
            dsn,
            timeout=10,
            server_settings={"application_name": "hoso verify", "statement_timeout": "0", "jit": "off"},
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise Unreadable(
            f"Không vào được cơ sở dữ liệu. / The database of {service} does not answer: {error!r}"
        ) from None


async def _read(notebook: Notebook, service: str, connection: Connection, tables: tuple[str, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for table in tables:
                counts[table] = await _copy(notebook, service, connection, table)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unreadable(f"Không đọc được lược đồ proof. / The proof of {service} cannot be read: {error!r}") from None
    return counts


async def _copy(notebook: Notebook, service: str, connection: Connection, table: str) -> int:
    shape = _shape_for(service, table)
    values = ("vn.hoso.DossierRecorded.v1",) if table == "recorded" else ()
    cursor = await connection.cursor(QUERIES[table], *values)
    count = 0
    while page := await cursor.fetch(PAGE):
        notebook.write(table, [shape(row) for row in page])
        count += len(page)
        await asyncio.sleep(0)
    return count


def _shape_for(service: str, table: str) -> Callable[[asyncpg.Record], tuple[Any, ...]]:
    """A function that makes a notebook row: the service first where the table has it, UUIDs as bytes, short types."""
    prefix: tuple[str, ...] = (service,) if table in BY_SERVICE else ()
    if table == "events":
        return lambda row: (*prefix, row[0], row[1].bytes, row[2], row[3].bytes, plain_type(row[4]), row[5])
    if table == "outcomes":
        return lambda row: (*prefix, row[0].bytes, plain_type(row[1]), row[2])
    return lambda row: (*prefix, *(_plain(value) for value in row))


def _plain(value: Any) -> Any:
    return value.bytes if hasattr(value, "bytes") else value


def plain_type(ce_type: str) -> str:
    """`DossierRecorded` for `vn.hoso.DossierRecorded.v1` and for `DossierRecorded`."""
    return ce_type.removeprefix("vn.hoso.").removesuffix(".v1")
