"""The numbered migrations of the services' databases."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

MIGRATIONS_LOCK = 7_318_001


async def migrate(pool: Pool, packages: Iterable[str]) -> None:
    """Apply each package's `migrations/NNNN_name.sql` once and in order; processes wait for each other.

    `packages`: import names, as in `["shared", "services.intake"]`.
    """
    async with pool.acquire() as tx:
        await tx.execute("set statement_timeout = 0; set lock_timeout = 0")
        await tx.execute("select pg_advisory_lock($1)", MIGRATIONS_LOCK)
        try:
            await tx.execute(
                "create table if not exists migrations"
                " (name text primary key, applied_at timestamptz not null default clock_timestamp())"
            )
            done = {row["name"] for row in await tx.fetch("select name from migrations")}
            for package in packages:
                for file in _numbered(resources.files(package) / "migrations"):
                    name = f"{package}/{file.name}"
                    if name not in done:
                        async with tx.transaction():
                            await tx.execute(file.read_text(encoding="utf-8"))
                            await tx.execute("insert into migrations (name) values ($1)", name)
                        log.info("migration applied", name=name)
        finally:
            await tx.execute("select pg_advisory_unlock($1)", MIGRATIONS_LOCK)
            await tx.execute("reset statement_timeout; reset lock_timeout")


def _numbered(folder: Traversable) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
