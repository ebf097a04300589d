"""A chain of pgqueuer jobs: each job's transaction writes state and events and enqueues the jobs that follow.

pgqueuer deletes finished jobs in batches afterwards, not in that transaction: after a crash a job may run again.
"""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import httpx2
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from bench.peers.place import Place, said_on_the_command_line
from bench.peers.steps import HEARD, Said, ask, step
from shared.privacy.sealed import Sealer

NAME = "pgqueuer"
WORKERS = ("one", "two")
BATCH = 100
CONNECTIONS = 10


async def enqueue(queries: Queries, made: list[Said]) -> None:
    if made:
        payloads: list[bytes | None] = [one.model_dump_json().encode() for one in made]
        await queries.enqueue([one.kind for one in made], payloads, [0] * len(made))


async def work(place: Place) -> None:
    sealer = Sealer(place.seal_keys)
    http = httpx2.AsyncClient(base_url=place.registry, trust_env=False)
    pool = await asyncpg.create_pool(place.dsn, min_size=2, max_size=CONNECTIONS)
    pgq = PgQueuer.from_asyncpg_pool(pool)

    async def on_job(job: Job) -> None:
        said = Said.model_validate_json(job.payload or b"")
        sealed_number = await ask(http, said, sealer) if said.kind == "IdNumberWanted" else None
        async with pool.acquire() as tx, tx.transaction():
            await enqueue(Queries(AsyncpgDriver(tx)), await step(tx, said, sealer, sealed_number))

    for kind in HEARD:
        pgq.entrypoint(kind)(on_job)
    await pgq.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=1))


async def install(place: Place) -> None:
    """pgqueuer's tables."""
    connection = await asyncpg.connect(place.dsn)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


async def offer(place: Place, submitted: list[Said]) -> None:
    """Enqueue all in one statement."""
    connection = await asyncpg.connect(place.dsn)
    await enqueue(Queries(AsyncpgDriver(connection)), submitted)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(work(said_on_the_command_line()[0]))
