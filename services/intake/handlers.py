"""Intake consumes the procedures, so that it can check submissions while workflow is down."""

from __future__ import annotations

from services.intake.store import ProcedureUnit, open_unit
from shared.contract.envelope import Received
from shared.contract.events import PROCEDURES, Fact, ProcedurePublished
from shared.inbox.consumer import Handler, Inbox

TOPICS = (PROCEDURES,)


def on_procedure_published(unit: ProcedureUnit, event: Received) -> None:
    fact = event.fact
    assert isinstance(fact, ProcedurePublished)
    unit.published.setdefault((fact.code, fact.version), fact)


HANDLERS: dict[type[Fact], Handler] = {ProcedurePublished: on_procedure_published}


def inbox() -> Inbox:
    """Relaxed: a new version of a procedure may take a second to arrive."""
    return Inbox(TOPICS, open_unit, HANDLERS, relaxed=True)
