"""A DBOS workflow for each dossier; its steps are transactions of a datasource and commit with DBOS's own checkpoint.

So a step's effect happens exactly once; the registry is asked in a plain step, which may run again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import sqlalchemy
import uvloop
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSClient
from sqlalchemy.ext.asyncio import AsyncSession

from bench.peers.place import Place, said_on_the_command_line
from bench.peers.statements import for_sqlalchemy, named
from bench.peers.steps import Said, ask, step
from shared.privacy.sealed import Sealer

NAME = "DBOS"
WORKERS = ("one", "two")
CONCURRENCY = 10
POLL_S = 0.1
QUEUE, WORKFLOW, VERSION = "dossiers", "dossier", "bench"


class Transaction:
    """The datasource's session in the words of the steps."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def execute(self, statement: str, *values: Any) -> None:
        await self._session.execute(sqlalchemy.text(for_sqlalchemy(statement)), named(values))

    async def fetchval(self, statement: str, *values: Any) -> Any:
        return (await self._session.execute(sqlalchemy.text(for_sqlalchemy(statement)), named(values))).scalar()


def launch(place: Place, worker: str) -> None:
    DBOS(
        config={
            "name": "hoso-bench",
            "system_database_url": place.dsn,
            "sys_db_pool_size": 16,
            "application_version": VERSION,
            "executor_id": worker,
            "log_level": "WARNING",
        }
    )


async def work(place: Place, worker: str) -> None:
    sealer = Sealer(place.seal_keys)
    http = httpx2.AsyncClient(base_url=place.registry, trust_env=False)
    launch(place, worker)
    datasource = await AsyncSQLAlchemyDatasource.create(place.dsn, engine_kwargs={"pool_size": 16})

    @datasource.transaction(isolation_level="READ COMMITTED")
    async def on_said(message: dict[str, Any], sealed_number: str | None) -> list[dict[str, Any]]:
        tx: Any = Transaction(datasource.sql_session())
        made = await step(tx, Said.model_validate(message), sealer, sealed_number)
        return [one.model_dump(mode="json") for one in made]

    @DBOS.step()
    async def ask_registry(message: dict[str, Any]) -> str:
        return await ask(http, Said.model_validate(message), sealer)

    @DBOS.workflow(name=WORKFLOW)
    async def dossier(message: dict[str, Any]) -> None:
        waiting = [message]
        while waiting:
            said = waiting.pop(0)
            sealed_number = await ask_registry(said) if said["kind"] == "IdNumberWanted" else None
            waiting += await on_said(said, sealed_number)

    DBOS.launch()
    await DBOS.register_queue_async(QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLL_S)
    await asyncio.Event().wait()


async def install(place: Place) -> None:
    """DBOS's tables."""
    launch(place, "installer")
    DBOS.launch()
    await AsyncSQLAlchemyDatasource.migrate(place.dsn)
    DBOS.destroy()


async def offer(place: Place, submitted: list[Said]) -> None:
    """Enqueue all workflows in one transaction."""

    def enqueue() -> None:
        client = DBOSClient(system_database_url=place.dsn, application_name="hoso-bench")
        engine = sqlalchemy.create_engine(sqlalchemy.make_url(place.dsn).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            for said in submitted:
                client.enqueue_in_transaction(
                    connection,
                    {"queue_name": QUEUE, "workflow_name": WORKFLOW, "app_version": VERSION},
                    said.model_dump(mode="json"),
                )
        engine.dispose()
        client.destroy()

    await asyncio.to_thread(enqueue)


if __name__ == "__main__":
    uvloop.run(work(*said_on_the_command_line()))
