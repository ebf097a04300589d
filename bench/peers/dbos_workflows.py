"""One DBOS workflow per dossier. Its steps are transactions of a datasource and commit with DBOS's own checkpoint.

So each step takes effect exactly once. The registry is called in a plain step, which may run again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import sqlalchemy
import uvloop
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSClient
from sqlalchemy.ext.asyncio import AsyncSession

from bench.peers.setup import PeerSetup, read_command_line
from bench.peers.statements import for_sqlalchemy, named
from bench.peers.steps import Message, ask, step
from shared.privacy.sealed import Sealer

NAME = "DBOS"
WORKERS = ("one", "two")
CONCURRENCY = 10
POLL_S = 0.1
QUEUE, WORKFLOW, VERSION = "dossiers", "dossier", "bench"


class Transaction:
    """The datasource's session with the interface that the steps use."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def execute(self, statement: str, *values: Any) -> None:
        await self._session.execute(sqlalchemy.text(for_sqlalchemy(statement)), named(values))

    async def fetchval(self, statement: str, *values: Any) -> Any:
        return (await self._session.execute(sqlalchemy.text(for_sqlalchemy(statement)), named(values))).scalar()


def launch(setup: PeerSetup, worker: str) -> None:
    DBOS(
        config={
            "name": "hoso-bench",
            "system_database_url": setup.dsn,
            "sys_db_pool_size": 16,
            "application_version": VERSION,
            "executor_id": worker,
            "log_level": "WARNING",
        }
    )


async def work(setup: PeerSetup, worker: str) -> None:
    sealer = Sealer(setup.seal_keys)
    http = httpx2.AsyncClient(base_url=setup.registry, trust_env=False)
    launch(setup, worker)
    datasource = await AsyncSQLAlchemyDatasource.create(setup.dsn, engine_kwargs={"pool_size": 16})

    @datasource.transaction(isolation_level="READ COMMITTED")
    async def handle(message: dict[str, Any], sealed_number: str | None) -> list[dict[str, Any]]:
        tx: Any = Transaction(datasource.sql_session())
        messages = await step(tx, Message.model_validate(message), sealer, sealed_number)
        return [each.model_dump(mode="json") for each in messages]

    @DBOS.step()
    async def ask_registry(message: dict[str, Any]) -> str:
        return await ask(http, Message.model_validate(message), sealer)

    @DBOS.workflow(name=WORKFLOW)
    async def dossier(message: dict[str, Any]) -> None:
        waiting = [message]
        while waiting:
            message = waiting.pop(0)
            sealed_number = await ask_registry(message) if message["kind"] == "IdNumberWanted" else None
            waiting += await handle(message, sealed_number)

    DBOS.launch()
    await DBOS.register_queue_async(QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLL_S)
    await asyncio.Event().wait()


async def install(setup: PeerSetup) -> None:
    """Create DBOS's tables."""
    launch(setup, "installer")
    DBOS.launch()
    await AsyncSQLAlchemyDatasource.migrate(setup.dsn)
    DBOS.destroy()


async def offer(setup: PeerSetup, submitted: list[Message]) -> None:
    """Enqueue all workflows in one transaction."""

    def enqueue() -> None:
        client = DBOSClient(system_database_url=setup.dsn, application_name="hoso-bench")
        engine = sqlalchemy.create_engine(sqlalchemy.make_url(setup.dsn).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            for message in submitted:
                client.enqueue_in_transaction(
                    connection,
                    {"queue_name": QUEUE, "workflow_name": WORKFLOW, "app_version": VERSION},
                    message.model_dump(mode="json"),
                )
        engine.dispose()
        client.destroy()

    await asyncio.to_thread(enqueue)


if __name__ == "__main__":
    uvloop.run(work(*read_command_line()))
