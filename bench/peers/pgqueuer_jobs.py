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

from bench.peers.setup import PeerSetup, read_command_line
from bench.peers.steps import CONSUMED, Message, ask, step
from shared.privacy.sealed import Sealer

NAME = "pgqueuer"
WORKERS = ("one", "two")
BATCH = 100
CONNECTIONS = 10


async def enqueue(queries: Queries, messages: list[Message]) -> None:
    if messages:
        payloads: list[bytes | None] = [message.model_dump_json().encode() for message in messages]
        await queries.enqueue([message.kind for message in messages], payloads, [0] * len(messages))


async def work(setup: PeerSetup) -> None:
    sealer = Sealer(setup.seal_keys)
    http = httpx2.AsyncClient(base_url=setup.registry, trust_env=False)
    pool = await asyncpg.create_pool(setup.dsn, min_size=2, max_size=CONNECTIONS)
    pgq = PgQueuer.from_asyncpg_pool(pool)

    async def on_job(job: Job) -> None:
        message = Message.model_validate_json(job.payload or b"")
        sealed_number = await ask(http, message, sealer) if message.kind == "IdNumberWanted" else None
        async with pool.acquire() as tx, tx.transaction():
            await enqueue(Queries(AsyncpgDriver(tx)), await step(tx, message, sealer, sealed_number))

    for kind in CONSUMED:
        pgq.entrypoint(kind)(on_job)
    await pgq.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=1))


async def install(setup: PeerSetup) -> None:
    """Create pgqueuer's tables."""
    connection = await asyncpg.connect(setup.dsn)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


async def offer(setup: PeerSetup, submitted: list[Message]) -> None:
    """Enqueue all in one statement."""
    connection = await asyncpg.connect(setup.dsn)
    await enqueue(Queries(AsyncpgDriver(connection)), submitted)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(work(read_command_line()[0]))
