"""Publishing and consuming, attached to a service: outbox and relay, inbox and subscription, parked records, gauges.

The broker is connected in the background, and tried again until it answers. Its state is a field of `/readyz` and a
metric, and never decides whether the service is ready.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.contract.stages import targets
from shared.inbox import parked
from shared.inbox.consumer import Consumer, Inbox
from shared.kafka.settings import KafkaSettings
from shared.kafka.subscription import Subscription
from shared.outbox import gauges
from shared.outbox.publish import Outbox
from shared.outbox.relay import Relay
from shared.outbox.state_records import StateOf
from shared.service import Part, Service
from shared.settings import DeliverySettings
from shared.telemetry.metrics import DeliveryMetrics, StageMetrics


@dataclass(frozen=True)
class States:
    """A compacted topic of states: `state_of` builds the records of dossiers whose events on `source` were sent."""

    source: str
    state_of: StateOf


class Delivery:
    """One service's outbox, metrics and stage targets. `part` adds the tasks that publish and consume."""

    def __init__(self, service: Service, settings: DeliverySettings) -> None:
        self._service, self._dsn = service, settings.database.get_secret_value()
        self.kafka = KafkaSettings(settings.kafka, settings.kafka_flavour)
        self.metrics = DeliveryMetrics(service.metrics_registry, service=service.name)
        self.stages = StageMetrics(service.metrics_registry)
        self.targets = targets(settings.targets, settings.speed)
        """stage -> target in seconds: working time for stages of people, wall time for stages of machines."""
        self.outbox = Outbox(service.pool)

    def consumer(self, inbox: Inbox) -> Consumer:
        return Consumer(inbox, self.outbox, self.metrics)

    def part(self, inbox: Inbox, states: States | None = None) -> Part:
        """The part that publishes the outbox and consumes `inbox`, for `create_app`."""
        relay = Relay(
            service=self._service.name,
            dsn=self._dsn,
            pool=self._service.pool,
            kafka=self.kafka,
            wake=self.outbox.wake,
            metrics=self.metrics,
            stages=self.stages,
            state_of=states.state_of if states else None,
            state_source=states.source if states else "",
        )
        consumer = self.consumer(inbox)
        subscription = Subscription(
            service=self._service.name,
            topics=inbox.topics,
            kafka=self.kafka,
            pool=self._service.pool,
            apply=consumer.apply,
            metrics=self.metrics,
            unhurried=inbox.relaxed,
        )

        async def refresh() -> None:
            await gauges.refresh(
                self._service.pool(),
                self.metrics,
                self.stages,
                relay_target_s=self.targets["relay"],
                relay_connected=relay.connected,
                topics=inbox.topics,
            )

        def readiness() -> dict[str, str]:
            connected = relay.connected and subscription.connected
            return {"broker": "connected" if connected else "connecting"}

        return Part(
            routers=[parked.router(self._service.pool, self.outbox, consumer)],
            background=[relay.run, subscription.run],
            refreshers=[refresh],
            readiness=readiness,
            migrations=("shared",),
        )
