"""The setup of a peer: its own database on the same server, the same broker, the same registry."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from importlib import resources

import asyncpg

from bench.testbed import Testbed
from shared.postgres.migrate import migrate

ENVIRONMENT = "HOSO_BENCH_PLACE"


@dataclass(frozen=True)
class PeerSetup:
    dsn: str
    kafka: str
    registry: str
    seal_keys: str

    @property
    def env(self) -> dict[str, str]:
        """The environment variable that passes this to the peer's processes."""
        return {ENVIRONMENT: json.dumps(asdict(self))}


def read_command_line() -> tuple[PeerSetup, str]:
    """Return the setup of this process of a peer, and the name of its worker."""
    return PeerSetup(**json.loads(os.environ[ENVIRONMENT])), sys.argv[1]


async def make_setup(testbed: Testbed, name: str) -> PeerSetup:
    """Create a fresh database with hoso's tables, one for all services, because a peer need not separate them.

    Of idlookup and notify only the ledgers are created: their counters belong to hoso's delivery.
    """
    testbed.stack.postgres.drop_database(name)
    dsn = testbed.stack.postgres.ensure_service_database(name)
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        await migrate(pool, ["shared", "services.workflow"])
        for service in ("idlookup", "notify"):
            for file in sorted((resources.files(f"services.{service}") / "migrations").iterdir(), key=lambda f: f.name):
                if file.name.endswith(".sql"):
                    text = file.read_text(encoding="utf-8")
                    await pool.execute(text.replace("create table dossiers", f"create table {service}_dossiers"))
    return PeerSetup(dsn, testbed.kafka, testbed.url["registry"], testbed.seal_keys)


def drop_setup(testbed: Testbed, name: str) -> None:
    testbed.stack.postgres.drop_database(name)
