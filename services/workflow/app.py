"""Workflow's application object: what its routes, handlers, commands and tasks share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from services.workflow.catalogue import ProcedureCatalogue
from services.workflow.metrics import WorkflowMetrics
from services.workflow.settings import WorkflowSettings
from services.workflow.stuck import StuckDossiers
from shared.clock import VIETNAM
from shared.delivery import Delivery
from shared.outbox.publish import Outbox
from shared.service import Service


@dataclass(repr=False)  # it holds keys, which no message may show
class WorkflowApp:
    """Made once from the settings. Everything else is derived from them."""

    settings: WorkflowSettings
    service: Service = field(init=False)
    delivery: Delivery = field(init=False)
    catalogue: ProcedureCatalogue = field(init=False)
    """The procedures and the calendar in force."""
    metrics: WorkflowMetrics = field(init=False)
    secret_key: bytes = field(init=False)
    """The key of the citizens' tracking secrets."""
    stuck: StuckDossiers = field(init=False, default_factory=StuckDossiers)
    """Dossiers that the background tasks skip for a while."""

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
        """The day of office time."""
        return self.service.office.now().astimezone(VIETNAM).date()
