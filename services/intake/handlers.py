"""What intake listens to: the procedures, so that it can check a submission while workflow is down."""

from __future__ import annotations

from services.intake.store import ProcedureWork
from shared.contract.envelope import Received
from shared.contract.events import PROCEDURES, Fact, ProcedurePublished
from shared.inbox.consumer import Handler

TOPICS = (PROCEDURES,)


def on_procedure_published(work: ProcedureWork, event: Received) -> None:
    fact = event.fact
    assert isinstance(fact, ProcedurePublished)
    work.published.setdefault((fact.code, fact.version), fact)


HANDLERS: dict[type[Fact], Handler] = {ProcedurePublished: on_procedure_published}
