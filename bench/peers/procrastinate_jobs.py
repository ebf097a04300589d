"""A chain of procrastinate jobs: each job's transaction writes state and events and defers the jobs that follow.

procrastinate marks a finished job as done in a separate statement: after a crash a job may run again.
"""

from __future__ import annotations

from typing import Any

import httpx2
import psycopg
import uvloop
from procrastinate import App, PsycopgConnector

from bench.peers.setup import PeerSetup, read_command_line
from bench.peers.statements import for_psycopg, named
from bench.peers.steps import Message, ask, step
from shared.privacy.sealed import Sealer

NAME = "procrastinate"
WORKERS = ("one", "two")
CONCURRENCY = 8
TASK = "hoso_step"


class Transaction:
    """psycopg's connection with the interface that the steps use."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def execute(self, statement: str, *values: Any) -> None:
        await self._connection.execute(for_psycopg(statement), named(values))

    async def fetchval(self, statement: str, *values: Any) -> Any:
        row = await (await self._connection.execute(for_psycopg(statement), named(values))).fetchone()
        return row[0] if row else None


def make_app(setup: PeerSetup) -> App:
    connector = PsycopgConnector(conninfo=setup.dsn, min_size=2, max_size=CONCURRENCY + 4)
    app = App(connector=connector)
    sealer = Sealer(setup.seal_keys)
    http = httpx2.AsyncClient(base_url=setup.registry, trust_env=False)

    @app.task(name=TASK)
    async def on_job(**content: Any) -> None:
        message = Message.model_validate(content)
        sealed_number = await ask(http, message, sealer) if message.kind == "IdNumberWanted" else None
        async with connector.pool.connection() as connection, connection.transaction():
            tx: Any = Transaction(connection)
            following = await step(tx, message, sealer, sealed_number)
            if following:
                contents = [each.model_dump(mode="json") for each in following]
                await on_job.configure(connection=connection).batch_defer_async(*contents)

    return app


async def install(setup: PeerSetup) -> None:
    """Create procrastinate's tables."""
    async with make_app(setup).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def offer(setup: PeerSetup, submitted: list[Message]) -> None:
    """Defer all in one statement."""
    async with make_app(setup).open_async() as app:
        await app.tasks[TASK].batch_defer_async(*[message.model_dump(mode="json") for message in submitted])


async def work(setup: PeerSetup) -> None:
    async with make_app(setup).open_async() as app:
        await app.run_worker_async(concurrency=CONCURRENCY, delete_jobs="always", fetch_job_polling_interval=0.5)


if __name__ == "__main__":
    uvloop.run(work(read_command_line()[0]))
