"""A chain of procrastinate jobs: each job's transaction writes state and events and defers the jobs that follow.

procrastinate marks a finished job as done by a statement of its own: after a crash a job may run again.
"""

from __future__ import annotations

from typing import Any

import httpx2
import psycopg
import uvloop
from procrastinate import App, PsycopgConnector

from bench.peers.place import Place, said_on_the_command_line
from bench.peers.statements import for_psycopg, named
from bench.peers.steps import Said, ask, step
from shared.privacy.sealed import Sealer

NAME = "procrastinate"
WORKERS = ("one", "two")
CONCURRENCY = 8
TASK = "hoso_step"


class Transaction:
    """psycopg's connection in the words of the steps."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def execute(self, statement: str, *values: Any) -> None:
        await self._connection.execute(for_psycopg(statement), named(values))

    async def fetchval(self, statement: str, *values: Any) -> Any:
        row = await (await self._connection.execute(for_psycopg(statement), named(values))).fetchone()
        return row[0] if row else None


def make_app(place: Place) -> App:
    connector = PsycopgConnector(conninfo=place.dsn, min_size=2, max_size=CONCURRENCY + 4)
    app = App(connector=connector)
    sealer = Sealer(place.seal_keys)
    http = httpx2.AsyncClient(base_url=place.registry, trust_env=False)

    @app.task(name=TASK)
    async def on_job(**message: Any) -> None:
        said = Said.model_validate(message)
        sealed_number = await ask(http, said, sealer) if said.kind == "IdNumberWanted" else None
        async with connector.pool.connection() as connection, connection.transaction():
            tx: Any = Transaction(connection)
            made = await step(tx, said, sealer, sealed_number)
            if made:
                messages = [one.model_dump(mode="json") for one in made]
                await on_job.configure(connection=connection).batch_defer_async(*messages)

    return app


async def install(place: Place) -> None:
    """procrastinate's tables."""
    async with make_app(place).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def offer(place: Place, submitted: list[Said]) -> None:
    """Defer all in one statement."""
    async with make_app(place).open_async() as app:
        await app.tasks[TASK].batch_defer_async(*[one.model_dump(mode="json") for one in submitted])


async def work(place: Place) -> None:
    async with make_app(place).open_async() as app:
        await app.run_worker_async(concurrency=CONCURRENCY, delete_jobs="always", fetch_job_polling_interval=0.5)


if __name__ == "__main__":
    uvloop.run(work(said_on_the_command_line()[0]))
