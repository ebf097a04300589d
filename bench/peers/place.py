"""Where a peer works: its own database on the same server, the same broker, the same registry."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from importlib import resources

import asyncpg

from bench.ground import Ground
from shared.postgres.migrate import migrate

TOLD = "HOSO_BENCH_PLACE"


@dataclass(frozen=True)
class Place:
    dsn: str
    kafka: str
    registry: str
    seal_keys: str

    @property
    def env(self) -> dict[str, str]:
        """How the peer's processes are told."""
        return {TOLD: json.dumps(asdict(self))}


def said_on_the_command_line() -> tuple[Place, str]:
    """For a peer's process: where it works, and which of its workers it is."""
    return Place(**json.loads(os.environ[TOLD])), sys.argv[1]


async def make_place(ground: Ground, name: str) -> Place:
    """A fresh database with hoso's tables: one for all services, since a peer need not keep them apart.

    Of idlookup and notify only their ledgers: the counters beside them belong to hoso's delivery.
    """
    ground.stack.postgres.drop_database(name)
    dsn = ground.stack.postgres.ensure_service_database(name)
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        await migrate(pool, ["shared", "services.workflow"])
        for service in ("idlookup", "notify"):
            for file in sorted((resources.files(f"services.{service}") / "migrations").iterdir(), key=lambda f: f.name):
                if file.name.endswith(".sql"):
                    text = file.read_text(encoding="utf-8")
                    await pool.execute(text.replace("create table dossiers", f"create table {service}_dossiers"))
    return Place(dsn, ground.kafka, ground.url["registry"], ground.seal_keys)


def forget_place(ground: Ground, name: str) -> None:
    ground.stack.postgres.drop_database(name)
