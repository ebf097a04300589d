"""The contenders of intake: a bare route, and intake itself with one transaction per request.

`python -m bench.intake_rivals bare` checks the same bodies by the same rules and stores nothing. `one-each` is intake
without its group commit: every request commits its own submission, over as many connections as the pool has. Both
run on uvicorn with intake's settings, from the same environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import asyncpg
from fastapi import FastAPI

from services.intake import api, store
from services.intake.acceptance import Acceptance, _Waiting
from services.intake.store import NewSubmission, StoredSubmission
from shared import service
from shared.clock import OfficeClock
from shared.settings import Settings
from shared.submission import rules


class OneEach(Acceptance):
    """Intake's own commit, called once per submission instead of once for all that wait."""

    def __init__(self) -> None:
        super().__init__()
        self._serving: asyncio.Future[service.Service] | None = None

    async def accept(self, new: NewSubmission) -> StoredSubmission:
        assert self._serving is not None
        waiting = _Waiting(new, asyncio.get_running_loop().create_future())
        await self._commit(await self._serving, [waiting])
        return waiting.answer.result()

    async def run(self, serving: service.Service) -> None:
        self._serving = asyncio.get_running_loop().create_future()
        self._serving.set_result(serving)
        await asyncio.Event().wait()


def one_each(settings: Settings) -> FastAPI:
    with patch.object(api, "Acceptance", OneEach):
        return service.build(settings, routers=api.routers, listening=api.listening, background=api.BACKGROUND)


def bare(settings: Settings) -> FastAPI:
    """A route as FastAPI's documentation writes it: body, check, answer. PostgreSQL is read at the start only."""
    procedures: dict[str, rules.ProcedureRules] = {}
    office = OfficeClock.of(settings.office0, settings.wall0, settings.speed)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        connection = await asyncpg.connect(settings.database.get_secret_value())
        for procedure in await store.list_procedures(connection, {}):
            procedures[procedure["code"]] = rules.ProcedureRules(procedure)
        await connection.close()
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/dossiers", status_code=201)
    async def submit(body: dict[str, Any]) -> dict[str, Any]:
        submission, procedure = rules.accept(body, procedures.get, office.now())
        return {
            "dossier_id": uuid4(),
            "status": "submitted",
            "procedure_code": submission.procedure_code,
            "procedure_version": procedure["version"],
        }

    return app


def main() -> None:
    settings = Settings()
    if sys.argv[1] == "one-each":
        service.run(one_each(settings))
        return
    app = bare(settings)
    app.state.service = type("Serving", (), {"settings": settings})
    service.run(app)


if __name__ == "__main__":
    main()
