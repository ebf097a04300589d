"""Notify's application object: what its routes, handlers and tasks share, put together once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.notify import rules, store
from services.notify.channels import Absent, Channel, Gateway, Mail
from services.notify.metrics import NoticeMetrics
from services.notify.sender import Sender
from services.notify.settings import NotifySettings
from services.notify.texts import Texts
from shared.delivery import Delivery
from shared.privacy.sealed import Sealer
from shared.service import Service


@dataclass
class NotifyApp:
    """`channels` by name; those that are `Absent` are not configured."""

    settings: NotifySettings
    channels: Mapping[str, Channel]
    patience: rules.Patience | None = None
    """How long a channel is tried; as the settings say when None."""
    service: Service = field(init=False)
    delivery: Delivery = field(init=False)
    sealer: Sealer = field(init=False)
    texts: Texts = field(init=False)
    metrics: NoticeMetrics = field(init=False)
    sender: Sender = field(init=False)

    def __post_init__(self) -> None:
        self.service = Service(self.settings)
        self.delivery = Delivery(self.service, self.settings)
        self.sealer = Sealer(self.settings.seal_keys.get_secret_value())
        self.texts = Texts()
        self.metrics = NoticeMetrics(self.delivery.stages, target_s=self.delivery.targets["notify"])
        self.sender = Sender(
            pool=self.service.pool,
            sealer=self.sealer,
            texts=self.texts,
            channels=self.channels,
            available=self.available,
            patience=self.patience or rules.Patience(tries=self.settings.channel_tries),
            deadline_s=self.settings.channel_deadline_s,
            metrics=self.metrics,
            outbox=self.delivery.outbox,
        )

    @classmethod
    def create(cls, settings: NotifySettings) -> NotifyApp:
        return cls(settings, channels_of(settings))

    @property
    def available(self) -> frozenset[str]:
        """The names of the channels that exist."""
        return frozenset(name for name, channel in self.channels.items() if not isinstance(channel, Absent))

    async def refresh_stage(self) -> None:
        """Set the gauges of the stage `notify`."""
        waiting, sending, oldest_at = await store.count_waiting(self.service.pool())
        self.metrics.show(waiting=waiting, in_progress=sending, oldest_at=oldest_at, workers=self.sender.workers)


def channels_of(settings: NotifySettings) -> dict[str, Channel]:
    """The channels as configured."""
    url, deadline_s = settings.sms_url, settings.channel_deadline_s
    return {
        rules.SMS: Gateway(url, rules.SMS, deadline_s) if url else Absent(),
        rules.ZALO: Gateway(url, rules.ZALO, deadline_s) if url else Absent(),
        rules.EMAIL: Mail(settings.smtp, settings.mail_from, deadline_s) if settings.smtp else Absent(),
    }
