"""notify's application object: what its routes, handlers and tasks share, built once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.notify import rules, store
from services.notify.channels import Absent, Channel, Gateway, Mail
from services.notify.metrics import NoticeMetrics
from services.notify.sender import Sender, Wiring
from services.notify.settings import NotifySettings
from services.notify.texts import Texts
from shared.delivery import Delivery
from shared.privacy.sealed import Sealer
from shared.service import Service


@dataclass(repr=False)  # it holds keys, which no message may show
class NotifyApp:
    """`channels` by name; one that is `Absent` is not configured."""

    settings: NotifySettings
    channels: Mapping[str, Channel]
    policy: rules.RetryPolicy | None = None
    """How often a channel is tried; None: as in the settings."""
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
            Wiring(
                pool=self.service.pool,
                outbox=self.delivery.outbox,
                sealer=self.sealer,
                texts=self.texts,
                channels=self.channels,
                available=self.available,
                policy=self.policy or rules.RetryPolicy(max_tries=self.settings.channel_tries),
                deadline_s=self.settings.channel_deadline_s,
                metrics=self.metrics,
            )
        )

    @classmethod
    def create(cls, settings: NotifySettings) -> NotifyApp:
        """With the channels of the settings."""
        return cls(settings, channels_of(settings))

    @property
    def available(self) -> frozenset[str]:
        """The names of the configured channels."""
        return frozenset(name for name, channel in self.channels.items() if not isinstance(channel, Absent))

    async def refresh_stage(self) -> None:
        """Set the gauges of the stage `notify`."""
        counts = await store.count_open(self.service.pool())
        self.metrics.report(
            waiting=counts.waiting,
            in_progress=counts.sending,
            oldest_at=counts.oldest_at,
            workers=self.sender.workers,
        )


def channels_of(settings: NotifySettings) -> dict[str, Channel]:
    """The channels by name, as configured."""
    url, deadline_s = settings.sms_url, settings.channel_deadline_s
    return {
        rules.SMS: Gateway(url, rules.SMS, deadline_s) if url else Absent(),
        rules.ZALO: Gateway(url, rules.ZALO, deadline_s) if url else Absent(),
        rules.EMAIL: Mail(settings.smtp, settings.mail_from, deadline_s) if settings.smtp else Absent(),
    }
