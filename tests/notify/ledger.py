"""Records as workflow's relay sends them, and notify's parts on a test's database, without its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.notify import handlers, rules
from services.notify.app import NotifyApp
from services.notify.channels import Channel, Message
from services.notify.settings import NotifySettings
from shared.clock import VIETNAM
from shared.contract.envelope import NO_TRACE, Record, headers_of, new_id
from shared.contract.events import NOTICE_REQUESTS, Fact, NoticeWanted
from shared.contract.partitions import lane_of
from shared.kafka.settings import KafkaSettings
from shared.privacy.sealed import Sealer
from tests.fixtures.services import SEAL_KEYS, settings_of

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

PHONE = "0912 345 678"
EMAIL = "nguoi-nop@vidu.invalid"
NAME = "Nguyễn Thị Ví Dụ"
WITH_PHONE = {"full_name": NAME, "phone": PHONE, "residential_area": "Khu 3"}
WITH_EMAIL = {"full_name": NAME, "email": EMAIL, "residential_area": "Khu 1"}
WITH_BOTH = {**WITH_PHONE, "email": EMAIL}
WITH_NOTHING = {"full_name": NAME, "residential_area": "Khu 2"}

sealer = Sealer(SEAL_KEYS)


def wanted(dossier_id: UUID, contact: Any, *, kind: str = "received", cause: str = "DossierReceived") -> NoticeWanted:
    return NoticeWanted(
        office_at=datetime(2025, 8, 25, 9, 0, tzinfo=VIETNAM),
        kind=kind,
        cause=cause,
        dossier_code="H44.99-250825-0001",
        national_status=2,
        due_at=datetime(2025, 8, 27, 17, 0, tzinfo=VIETNAM),
        receiving_agency="H44.99",
        sealed_contact=sealer.seal(dossier_id, "contact", contact),
    )


def record_of(fact: Fact, dossier_id: UUID | None, sequence: int, ce_id: UUID | None = None) -> Record:
    """The fact as a record of the topic."""
    subject = str(dossier_id) if dossier_id else "heartbeat"
    now = datetime.now(UTC)
    headers = headers_of(
        topic=NOTICE_REQUESTS,
        subject=subject,
        sequence=sequence,
        ce_id=ce_id or new_id(),
        type=type(fact).__name__,
        trace_id=NO_TRACE,
        recorded_at=now,
    )
    value = fact.model_dump_json().encode()
    return Record(NOTICE_REQUESTS, lane_of(subject), sequence, subject.encode(), tuple(headers), value, now)


def notice_id_of(record: Record) -> UUID:
    return UUID(dict(record.headers)["ce_id"].decode())


def message(reference: str, to: str, *, repeated: bool = False) -> Message:
    return Message(reference, to, "Hồ sơ: thông báo", "Hồ sơ H44.99-250825-0001: đã được tiếp nhận.\n", repeated)


@dataclass
class Scripted:
    """A channel whose results the test decides; it keeps the messages."""

    script: Callable[[Message], rules.SendResult]
    calls_hand_over: bool = False
    slots: int = 64
    messages: list[Message] = field(default_factory=list)

    async def send(self, message: Message, hand_over: Any) -> rules.SendResult:
        if self.calls_hand_over and not await hand_over():
            return rules.SendResult("retry", "lease-lost")
        self.messages.append(message)
        await asyncio.sleep(0)
        return self.script(message)

    async def close(self) -> None: ...


class Notify:
    """Notify's parts on a test's database, without its process."""

    def __init__(
        self, pool: Pool, channels: dict[str, Channel], policy: rules.RetryPolicy | None = None, deadline_s: float = 2.0
    ) -> None:
        env = settings_of("notify", "postgres://nowhere", KafkaSettings("nowhere:1"), 0)
        settings = {name.removeprefix("HOSO_").lower(): value for name, value in env.items()}
        self.app = NotifyApp(
            NotifySettings.model_validate({**settings, "channel_deadline_s": deadline_s}),
            channels,
            policy or rules.RetryPolicy(max_tries=4, first_pause_s=0.02),
        )
        if pool is not None:
            self.app.service.use(pool)
        self.pool, self.registry = pool, self.app.service.metrics_registry
        self.available, self.metrics, self.sender = self.app.available, self.app.metrics, self.app.sender
        self.consumer = self.app.delivery.consumer(handlers.inbox(self.app))

    async def rows(self) -> list[Any]:
        return await self.pool.fetch("select * from notices order by notice_id, try_at, channel")

    async def states(self) -> list[tuple[str, str]]:
        return [(row["channel"], row["state"]) for row in await self.rows()]

    async def published_events(self) -> list[tuple[int, str, str]]:
        """(sequence, type, data) of the outbox's events about dossiers, in order."""
        rows = await self.pool.fetch(
            "select sequence, type, convert_from(data, 'UTF8') as data from events"
            " where dossier_id is not null order by id"
        )
        return [(row["sequence"], row["type"], row["data"]) for row in rows]
