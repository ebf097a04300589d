"""Records as workflow's relay sends them, and idlookup's parts on a test's database, without its process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from aiokafka import AIOKafkaProducer

from services.idlookup import handlers
from services.idlookup.app import IdlookupApp
from services.idlookup.settings import IdlookupSettings
from shared.clock import VIETNAM
from shared.contract.envelope import NO_TRACE, Record, headers_of, new_id
from shared.contract.events import IDNUMBER_REQUESTS, Fact, IdCheckWanted, IdNumberNoLongerWanted, IdNumberWanted
from shared.contract.partitions import lane_of
from shared.kafka.settings import KafkaSettings
from shared.privacy.sealed import Sealer
from tests.fixtures.services import SEAL_KEYS, settings_of
from tests.fixtures.waiting import wait_until

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

PACKAGES = ("shared", "services.idlookup")
AT = datetime(2026, 2, 2, 9, 0, tzinfo=VIETNAM)
NAME = "Nguyễn Minh Mẫu"
SUBJECT = {
    "child": {"full_name": NAME, "birth_date": "2026-01-31", "gender": "female"},
    "declarant_relation": "mother",
}
PERSON = {"full_name": "Trần Thị Mẫu", "birth_date": "1996-04-12", "personal_id": "025196000123"}
STRANGER = {**PERSON, "personal_id": "025196000100"}
"""A person whom the registry does not know."""
UNANSWERED = ("waiting", "calling", "pending")

sealer = Sealer(SEAL_KEYS)


def number_wanted(dossier_id: UUID, subject: Any = SUBJECT) -> IdNumberWanted:
    return IdNumberWanted(
        office_at=AT, procedure_group="birth", sealed_subject=sealer.seal(dossier_id, "subject", subject)
    )


def check_wanted(dossier_id: UUID, person: Any = PERSON) -> IdCheckWanted:
    return IdCheckWanted(office_at=AT, procedure_group="other", sealed_person=sealer.seal(dossier_id, "person", person))


def no_longer_wanted(request_key: UUID) -> IdNumberNoLongerWanted:
    return IdNumberNoLongerWanted(office_at=AT, request_key=request_key)


def record_of(
    fact: Fact, dossier_id: UUID | None, sequence: int, ce_id: UUID | None = None, *, age_s: float = 0.0
) -> Record:
    """The fact as a record of the topic, recorded `age_s` wall seconds ago."""
    subject = str(dossier_id) if dossier_id else "heartbeat"
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    headers = headers_of(
        topic=IDNUMBER_REQUESTS,
        subject=subject,
        sequence=sequence,
        ce_id=ce_id or new_id(),
        type=type(fact).__name__,
        trace_id=NO_TRACE,
        recorded_at=at,
    )
    value = fact.model_dump_json().encode()
    return Record(IDNUMBER_REQUESTS, lane_of(subject), sequence, subject.encode(), tuple(headers), value, at)


def key_of(record: Record) -> UUID:
    """The request's key: the event's own id."""
    return UUID(str(dict(record.headers)["ce_id"], "ascii"))


def dossier_of(record: Record) -> UUID:
    return UUID(str(record.key, "ascii"))  # type: ignore[arg-type]


def births(number: int) -> list[Record]:
    """Requests for `number` numbers, each of its own dossier."""
    return [record_of(number_wanted(dossier_id), dossier_id, 1) for dossier_id in (new_id() for _ in range(number))]


def checks(number: int) -> list[Record]:
    """Requests for `number` checks, each of its own dossier."""
    return [record_of(check_wanted(dossier_id), dossier_id, 1) for dossier_id in (new_id() for _ in range(number))]


async def publish(kafka: KafkaSettings, records: Sequence[Record]) -> None:
    producer: AIOKafkaProducer = kafka.producer("test")
    await producer.start()
    try:
        for row in records:
            headers = list(row.headers)
            await producer.send_and_wait(row.topic, row.value, key=row.key, headers=headers, partition=row.partition)
    finally:
        await producer.stop()


async def states(pool: Pool) -> dict[str, int]:
    """state -> how many requests are in it, from the schema `proof`."""
    rows = await pool.fetch("select state, count(*) as n from proof.id_requests group by 1")
    return {row["state"]: row["n"] for row in rows}


async def are_answered(pool: Pool, number: int) -> bool:
    """Whether there are `number` requests and none is open."""
    counts = await states(pool)
    return sum(counts.values()) == number and not any(counts.get(state) for state in UNANSWERED)


async def until_answered(pool: Pool, number: int, bound_s: float = 30.0) -> dict[str, int]:
    """Wait until `are_answered`; returns the states."""
    try:
        await wait_until(lambda: are_answered(pool, number), bound_s)
    except AssertionError as late:
        raise AssertionError(f"{late}: {await states(pool)}") from None
    return await states(pool)


async def published_events(pool: Pool, dossier_id: UUID | None = None) -> list[tuple[int, str, dict[str, Any]]]:
    """The events in the outbox, in order; heartbeats only left out when no dossier is given."""
    rows = await pool.fetch(
        "select sequence, type, data from events where dossier_id = $1 or ($1 is null and dossier_id is not null)"
        " order by id",
        dossier_id,
    )
    return [(row["sequence"], row["type"], orjson.loads(row["data"])) for row in rows]


class Lookup:
    """The service's parts on the test's database. `consume` is its consumer; inside `calling` the workers run."""

    def __init__(self, pool: Pool, url: str, **settings: Any) -> None:
        env = settings_of("idlookup", "postgres://nowhere", KafkaSettings("nowhere:1"), 0)
        names = {name.removeprefix("HOSO_").lower(): value for name, value in env.items()}
        chosen = {"registry_url": url, "call_deadline_s": 0.5, **settings}
        self.pool = pool
        self.app = IdlookupApp(IdlookupSettings(**{**names, **chosen}))
        if pool is not None:
            self.app.service.use(pool)
        self.consumer = self.app.delivery.consumer(handlers.inbox(self.app))

    async def consume(self, records: Sequence[Record]) -> None:
        await self.consumer.apply(records)

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.app.call_registry())
        try:
            yield
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def breaker_is(self, state: str) -> bool:
        """Whether the circuit breaker for numbers is in this state."""
        workers = self.app.workers
        return "issue" in workers and workers["issue"].breaker.state == state

    def value(self, name: str, **labels: str) -> float:
        return self.app.service.metrics_registry.get_sample_value(name, labels) or 0.0
