"""Creates databases and login roles on a PostgreSQL server: one of each per service."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import asyncpg

T = TypeVar("T")


def ensure_databases(admin: str, passwords: dict[str, str]) -> dict[str, str]:
    """Create one database and one login role per service; no other role may connect. Returns the DSN by service.

    `admin` is the DSN of a role that may create roles and databases, on any server.
    """
    return _finish(_ensure_databases(admin, passwords))


async def _ensure_databases(admin: str, passwords: dict[str, str]) -> dict[str, str]:
    connection = await asyncpg.connect(admin)
    try:
        roles = {row[0] for row in await connection.fetch("select rolname from pg_roles")}
        databases = {row[0] for row in await connection.fetch("select datname from pg_database")}
        dsns = {}
        for name, password in passwords.items():
            if not (name.isidentifier() and password.replace("-", "").replace("_", "").isalnum()):
                raise ValueError(f"not a service's name and password: {name}")
            verb = "alter" if name in roles else "create"
            await connection.execute(f"{verb} role \"{name}\" login password '{password}'")
            if name not in databases:
                # The admin of a hosted server is often not a superuser: it needs membership to set an owner.
                await connection.execute(f'grant "{name}" to current_user')
                await connection.execute(f'create database "{name}" owner "{name}"')
                await connection.execute(f'revoke connect, temporary on database "{name}" from public')
            address, _, rest = admin.partition("@")[2].partition("/")
            options = f"?{rest.partition('?')[2]}" if "?" in rest else ""
            dsns[name] = f"postgresql://{name}:{password}@{address}/{name}{options}"
        return dsns
    finally:
        await connection.close()


def execute(dsn: str, statement: str) -> None:
    """Execute one statement outside a transaction."""
    _finish(_execute(dsn, statement))


def read_settings(dsn: str, names: list[str]) -> dict[str, str]:
    """Return the server's settings by name, as pg_settings holds them."""
    return _finish(_read_settings(dsn, names))


async def _read_settings(dsn: str, names: list[str]) -> dict[str, str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("select name, setting from pg_settings where name = any($1)", names)
        return {row["name"]: row["setting"] for row in rows}
    finally:
        await connection.close()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine in a new thread, so that a caller inside an event loop may use it too."""
    with ThreadPoolExecutor(1) as one:
        return one.submit(asyncio.run, coroutine).result()
