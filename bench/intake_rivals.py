"""The contenders of intake: a bare route, and intake itself with one transaction per request.

`python -m bench.intake_rivals bare` checks the same bodies by the same rules and stores nothing. `one-each` is intake
without its group commit: every request commits its own submission, over as many connections as the pool has. Both
run on uvicorn with intake's settings, from the same environment.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
from fastapi import FastAPI

from services.intake import api, store
from services.intake.acceptance import Acceptance
from services.intake.app import IntakeApp
from services.intake.settings import IntakeSettings
from services.intake.store import NewSubmission, StoredSubmission
from shared import service
from shared.clock import OfficeClock
from shared.service import Service
from shared.submission import rules


class OneEach(Acceptance):
    """Intake's own commit, called once for every submission instead of once for all that wait."""

    async def accept(self, new: NewSubmission) -> StoredSubmission:
        [stored] = await self.commit([new])
        return stored


def one_each(settings: IntakeSettings) -> FastAPI:
    app = IntakeApp(settings)
    app.acceptance = OneEach(app.delivery.outbox)
    return api.create_app(app)


def bare(settings: IntakeSettings) -> FastAPI:
    """As FastAPI's own documentation would write it: a body, a check, an answer. PostgreSQL is asked at start only."""
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
    settings = IntakeSettings()
    if sys.argv[1] == "one-each":
        service.run(one_each(settings))
        return
    app = bare(settings)
    app.state.service = Service(settings)
    service.run(app)


if __name__ == "__main__":
    main()
