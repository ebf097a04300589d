"""Intake's application object: what its routes, handlers and tasks share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import date

from services.intake import store
from services.intake.acceptance import Acceptance
from services.intake.catalogue import ProcedureCatalogue
from services.intake.settings import IntakeSettings
from shared.clock import VIETNAM, wall_now
from shared.contract.envelope import Outgoing, new_id
from shared.contract.events import SubmissionHeartbeat
from shared.contract.partitions import DossierIds
from shared.delivery import Delivery
from shared.privacy.sealed import Sealer
from shared.service import Service

HEARTBEAT_S = 60.0
SWEEP_EVERY_S = 3_600.0
ABANDONED_AFTER_S = 86_400.0
"""An upload that is not finished so many wall seconds after its start is deleted."""


@dataclass(repr=False)  # it holds keys, which no message may show
class IntakeApp:
    """`catalogue` is intake's own copy of the procedures; `acceptance` stores submissions."""

    settings: IntakeSettings
    service: Service = field(init=False)
    delivery: Delivery = field(init=False)
    sealer: Sealer = field(init=False)
    secret_key: bytes = field(init=False)
    catalogue: ProcedureCatalogue = field(init=False, default_factory=ProcedureCatalogue)
    acceptance: Acceptance = field(init=False)
    dossier_ids: DossierIds = field(init=False, default_factory=DossierIds)

    def __post_init__(self) -> None:
        self.service = Service(self.settings)
        self.delivery = Delivery(self.service, self.settings)
        self.sealer = Sealer(self.settings.seal_keys.get_secret_value())
        self.secret_key = self.settings.secret.get_secret_value().encode()
        self.acceptance = Acceptance(self.delivery.outbox)

    def today(self) -> date:
        """The centre's day."""
        return self.service.office.now().astimezone(VIETNAM).date()

    async def read_procedures(self) -> None:
        """Read new versions of procedures from the table, until cancelled."""
        while True:
            await self.catalogue.refresh(self.service.pool())
            await asyncio.sleep(0.25 if not len(self.catalogue) else 2.0)

    async def send_heartbeats(self) -> None:
        """Publish a heartbeat every minute, so that a broken pipeline is noticed even without traffic."""
        while True:
            fact = SubmissionHeartbeat(sent_at=wall_now())
            async with self.delivery.outbox.transaction() as transaction:
                transaction.append([Outgoing(None, 0, fact, new_id(), new_id(), key="heartbeat")])
            await asyncio.sleep(HEARTBEAT_S)

    async def sweep_uploads(self) -> None:
        """Delete every hour what remains of uploads during which a process died."""
        while True:
            await store.drop_abandoned(self.service.pool(), ABANDONED_AFTER_S)
            await asyncio.sleep(SWEEP_EVERY_S)
