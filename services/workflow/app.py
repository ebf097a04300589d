"""Workflow's application object: what its routes, handlers, commands and tasks share, put together once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from services.workflow.catalogue import ProcedureCatalogue
from services.workflow.metrics import WorkflowMetrics
from services.workflow.settings import WorkflowSettings
from services.workflow.stuck import Stuck
from shared.clock import VIETNAM
from shared.delivery import Delivery
from shared.outbox.publish import Outbox
from shared.service import Service


@dataclass
class WorkflowApp:
    """`catalogue`: the procedures and the calendar in force; `stuck`: dossiers that timers pass over for a while."""

    settings: WorkflowSettings
    service: Service = field(init=False)
    delivery: Delivery = field(init=False)
    catalogue: ProcedureCatalogue = field(init=False)
    metrics: WorkflowMetrics = field(init=False)
    secret_key: bytes = field(init=False)
    stuck: Stuck = field(init=False, default_factory=Stuck)

    def __post_init__(self) -> None:
        self.service = Service(self.settings)
        self.delivery = Delivery(self.service, self.settings)
        self.catalogue = ProcedureCatalogue(self.today)
        self.metrics = WorkflowMetrics(self.service.metrics_registry, self.delivery.stages)
        self.secret_key = self.settings.secret.get_secret_value().encode()

    @property
    def outbox(self) -> Outbox:
        return self.delivery.outbox

    def today(self) -> date:
        """The centre's day."""
        return self.service.office.now().astimezone(VIETNAM).date()
