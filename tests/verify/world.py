"""A small world to verify: the databases and the broker as four services leave them. Tests plant defects in it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg
from aiokafka import AIOKafkaProducer

from deploy import verify

LIFECYCLE = "dossier.lifecycle.v1"
SUBMISSIONS = "internal.submissions.v1"
WANTED = "internal.idnumber-requests.v1"
FOUND = "internal.idnumber-results.v1"
NOTICE_REQUESTS = "internal.notice-requests.v1"
NOTICES = "internal.notices.v1"
PRODUCER = {
    LIFECYCLE: "workflow", SUBMISSIONS: "intake", WANTED: "workflow", FOUND: "idlookup",
    NOTICE_REQUESTS: "workflow", NOTICES: "notify",
}  # fmt: skip
CONSUMER = {
    SUBMISSIONS: "workflow", WANTED: "idlookup", FOUND: "workflow", NOTICE_REQUESTS: "notify", NOTICES: "workflow"
}  # fmt: skip
TABLES = ("submissions", "events", "applied", "held", "parked", "notices", "id_requests")
HEALTHY = {"lost": 0, "repeated_effects": 0, "numbers_issued_twice": 0, "order_violations": 0}


@dataclass
class Event:
    """One event: in its producer's table, on the broker, and applied by its consumer, unless a test changes that."""

    topic: str
    dossier: UUID
    sequence: int
    type: str
    data: dict[str, Any]
    ce_id: UUID = field(default_factory=uuid4)

    def headers(self) -> list[tuple[str, bytes]]:
        return [
            ("ce_specversion", b"1.0"),
            ("ce_id", str(self.ce_id).encode()),
            ("ce_source", f"/hoso/{PRODUCER[self.topic]}/{self.topic}".encode()),
            ("ce_type", f"vn.hoso.{self.type}.v1".encode()),
            ("ce_subject", str(self.dossier).encode()),
            ("ce_time", b"2025-08-26T02:00:00.000000Z"),
            ("ce_sequence", b"%010d" % self.sequence),
            ("content-type", b"application/json"),
        ]

    def copy(self, **changes: Any) -> Event:
        """Return the event with some fields changed; `copy(ce_id=...)` makes an impostor."""
        return Event(**({**self.__dict__} | changes))


class Notice(NamedTuple):
    """One row of notify's ledger."""

    notice_id: UUID
    dossier: UUID
    channel: str
    state: str


class IdRequest(NamedTuple):
    """One request of idlookup. `kind`: issue or verify."""

    key: UUID
    dossier: UUID
    kind: str
    state: str


@dataclass
class World:
    """Build with `healthy`, change the lists, `write` it, `prove` it."""

    dsns: dict[str, str]
    kafka: str
    registry: str
    submitted: list[UUID] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    broker: list[Event] = field(default_factory=list)
    """The records on the broker, in this order."""
    applied: list[tuple[Event, int]] = field(default_factory=list)
    unsent: list[Event] = field(default_factory=list)
    just_sent: list[Event] = field(default_factory=list)
    held: list[tuple[Event, str]] = field(default_factory=list)
    parked: list[tuple[Event, str]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    requests: list[IdRequest] = field(default_factory=list)
    due_in_s: dict[UUID, float] = field(default_factory=dict)
    """Request key -> seconds until idlookup asks the registry about it."""
    real: set[str] = field(default_factory=set)
    """Services that really run: `write` does not change their databases."""

    def healthy(self, dossiers: int = 3) -> World:
        for number in range(dossiers):
            self.birth(f"H08.15.99-250826-{number:05d}")
        return self

    def birth(self, code: str) -> UUID:
        """Add the events of one birth from the counter to the notice, on every topic."""
        dossier = uuid4()
        self.submitted.append(dossier)
        self.emit(SUBMISSIONS, dossier, "DossierSubmitted")
        self.emit(LIFECYCLE, dossier, "DossierRecorded")
        self.emit(LIFECYCLE, dossier, "DossierReceived", dossier_code=code)
        wanted = self.emit(WANTED, dossier, "IdNumberWanted")
        self.requests.append(IdRequest(wanted.ce_id, dossier, "issue", "found"))
        self.emit(FOUND, dossier, "IdNumberFound", request_key=str(wanted.ce_id))
        self.emit(LIFECYCLE, dossier, "IdNumberIssued")
        for _ in range(2):
            notice = self.emit(NOTICE_REQUESTS, dossier, "NoticeWanted")
            self.notices.append(Notice(notice.ce_id, dossier, "sms", "sent"))
            self.emit(NOTICES, dossier, "NoticeSent", notice_id=str(notice.ce_id), channel="sms")
        self.emit(LIFECYCLE, dossier, "ResultReturned")
        return dossier

    def emit(self, topic: str, dossier: UUID, type: str, **data: Any) -> Event:
        sequence = 1 + sum(event.topic == topic and event.dossier == dossier for event in self.events)
        event = Event(topic, dossier, sequence, type, data)
        self.events.append(event)
        self.broker.append(event)
        if topic in CONSUMER:
            self.applied.append((event, 1))
        return event

    def request(self, type: str, state: str, answer: str = "", **data: Any) -> UUID:
        """Add a request of the first dossier, and idlookup's answer to it. Returns the request's key."""
        dossier = self.submitted[0]
        wanted = self.emit(WANTED, dossier, type)
        kind = "issue" if type == "IdNumberWanted" else "verify"
        self.requests.append(IdRequest(wanted.ce_id, dossier, kind, state))
        if answer:
            self.emit(FOUND, dossier, answer, request_key=str(wanted.ce_id), **data)
        return wanted.ce_id

    def find(self, type: str, at: int = 0) -> Event:
        return [event for event in self.events if event.type == type][at]

    def remove_event(self, event: Event) -> None:
        """Remove the event as if it was never emitted; the producer's later events of the dossier move up."""
        self.events.remove(event)
        self.broker.remove(event)
        self.not_applied(event)
        for other in self.events:
            if (other.topic, other.dossier) == (event.topic, event.dossier) and other.sequence > event.sequence:
                other.sequence -= 1

    def not_applied(self, *lost: Event) -> None:
        self.applied = [(event, times) for event, times in self.applied if event not in lost]

    def swap(self, first: Event, second: Event) -> None:
        """Swap two records on the broker."""
        i, j = self.broker.index(first), self.broker.index(second)
        self.broker[i], self.broker[j] = second, first

    async def write(self) -> None:
        """Write everything into the four databases and onto the broker."""
        rows: dict[str, dict[str, list[tuple[Any, ...]]]] = {name: {t: [] for t in TABLES} for name in self.dsns}
        rows["intake"]["submissions"] = [(dossier,) for dossier in self.submitted]
        for event in self.events:
            age = None if event in self.unsent else 1.0 if event in self.just_sent else 60.0
            position = (event.topic, event.dossier, event.sequence)
            rows[PRODUCER[event.topic]]["events"].append((*position, event.ce_id, event.type, age))
        for event, times in self.applied:
            rows[CONSUMER[event.topic]]["applied"].append((event.topic, event.dossier, event.sequence, times))
        for event, reason in self.held:
            rows[CONSUMER[event.topic]]["held"].append((event.topic, event.dossier, event.sequence, reason))
        for event, reason in self.parked:
            rows[CONSUMER[event.topic]]["parked"].append(
                (event.topic, event.dossier, event.sequence, event.ce_id, reason)
            )
        rows["notify"]["notices"] = [
            (notice.notice_id, notice.dossier, "received", notice.channel, notice.state) for notice in self.notices
        ]
        rows["idlookup"]["id_requests"] = [
            (request.key, request.kind, request.state, request.dossier, self.due_in_s.get(request.key))
            for request in self.requests
        ]
        for service, tables in rows.items():
            if service not in self.real:
                await self._store(service, tables)
        await self.produce(*self.broker)

    async def _store(self, service: str, tables: dict[str, list[tuple[Any, ...]]]) -> None:
        tx = await asyncpg.connect(self.dsns[service])
        try:
            await tx.execute(f"truncate {', '.join(TABLES)}")
            await tx.executemany("insert into submissions (dossier_id) values ($1)", tables["submissions"])
            await tx.executemany(
                "insert into events (topic, dossier_id, sequence, ce_id, type, sent_at)"
                " values ($1, $2, $3, $4, $5, now() - $6::float8 * interval '1 second')",
                tables["events"],
            )
            await tx.executemany("insert into applied values ($1, $2, $3, $4)", tables["applied"])
            await tx.executemany("insert into held values ($1, $2, $3, $4)", tables["held"])
            await tx.executemany("insert into parked values ($1, $2, $3, $4, $5)", tables["parked"])
            await tx.executemany("insert into notices values ($1, $2, $3, $4, $5)", tables["notices"])
            await tx.executemany(
                "insert into id_requests values ($1, $2, $3, $4, now() + $5::float8 * interval '1 second')",
                tables["id_requests"],
            )
        finally:
            await tx.close()

    async def produce(self, *records: Event) -> None:
        await self.produce_raw(
            *(
                (event.topic, str(event.dossier).encode(), event.headers(), json.dumps(event.data).encode())
                for event in records
            )
        )

    async def produce_raw(self, *records: tuple[str, bytes | None, list[tuple[str, bytes]], bytes | None]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, acks="all")
        await producer.start()
        try:
            for topic, key, headers, value in records:
                await producer.send(topic, key=key, headers=headers, value=value)
            await producer.flush()
        finally:
            await producer.stop()

    def endpoints(self) -> dict[str, Any]:
        return {"databases": self.dsns, "kafka": self.kafka, "registry": self.registry}

    async def prove(self, *, settle_seconds: float = 0.0) -> verify.Report:
        await self.write()
        return await verify.run(self.endpoints(), settle_seconds=settle_seconds)

    async def prove_again(self) -> verify.Report:
        """Verify again after another change: write the databases again; the broker keeps its records."""
        self.broker = []
        return await self.prove()


def kinds(report: verify.Report, zero: str) -> Counter[str]:
    """Count the kinds of finding among a zero's examples."""
    return Counter(str(example["kind"]) for example in report.as_json()["details"][zero])
