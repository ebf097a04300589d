"""A small world to prove: what four services would have left behind, by hand, so that defects can be planted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
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
SPEAKER = {
    LIFECYCLE: "workflow", SUBMISSIONS: "intake", WANTED: "workflow", FOUND: "idlookup",
    NOTICE_REQUESTS: "workflow", NOTICES: "notify",
}  # fmt: skip
LISTENER = {
    SUBMISSIONS: "workflow", WANTED: "idlookup", FOUND: "workflow", NOTICE_REQUESTS: "notify", NOTICES: "workflow"
}  # fmt: skip
TABLES = ("submissions", "events", "applied", "held", "parked", "notices", "id_requests")
HEALTHY = {"lost": 0, "repeated_effects": 0, "numbers_issued_twice": 0, "order_violations": 0}


@dataclass
class Said:
    """One event: in its speaker's table, on the broker, and applied by its listener, unless a test alters that."""

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
            ("ce_source", f"/hoso/{SPEAKER[self.topic]}/{self.topic}".encode()),
            ("ce_type", f"vn.hoso.{self.type}.v1".encode()),
            ("ce_subject", str(self.dossier).encode()),
            ("ce_time", b"2025-08-26T02:00:00.000000Z"),
            ("ce_sequence", b"%010d" % self.sequence),
            ("content-type", b"application/json"),
        ]

    def again(self, **changes: Any) -> Said:
        """The same event with something changed; `again(ce_id=...)` is an impostor in its place."""
        return Said(**({**self.__dict__} | changes))


@dataclass
class World:
    """Build with `healthy`, alter the lists, `play` it, `prove` it."""

    dsns: dict[str, str]
    kafka: str
    registry: str
    submitted: list[UUID] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    broker: list[Said] = field(default_factory=list)
    """What lies on the broker, in this order."""
    applied: list[tuple[Said, int]] = field(default_factory=list)
    unsent: list[Said] = field(default_factory=list)
    just_sent: list[Said] = field(default_factory=list)
    held: list[tuple[Said, str]] = field(default_factory=list)
    parked: list[tuple[Said, str]] = field(default_factory=list)
    notices: list[tuple[UUID, UUID, str, str]] = field(default_factory=list)
    """(notice, dossier, channel, state)"""
    requests: list[tuple[UUID, UUID, str, str]] = field(default_factory=list)
    """(key, dossier, kind, state)"""
    due_in_s: dict[UUID, float] = field(default_factory=dict)
    """Request key -> seconds until it is to be looked at."""
    real: set[str] = field(default_factory=set)
    """Services that run for real: their databases are theirs."""

    def healthy(self, dossiers: int = 3) -> World:
        for number in range(dossiers):
            self.birth(f"H08.15.99-250826-{number:05d}")
        return self

    def birth(self, code: str) -> UUID:
        """One birth from the counter to the notice: every topic has a part in it."""
        dossier = uuid4()
        self.submitted.append(dossier)
        self.say(SUBMISSIONS, dossier, "DossierSubmitted")
        self.say(LIFECYCLE, dossier, "DossierRecorded")
        self.say(LIFECYCLE, dossier, "DossierReceived", dossier_code=code)
        wanted = self.say(WANTED, dossier, "IdNumberWanted")
        self.requests.append((wanted.ce_id, dossier, "issue", "found"))
        self.say(FOUND, dossier, "IdNumberFound", request_key=str(wanted.ce_id))
        self.say(LIFECYCLE, dossier, "IdNumberIssued")
        for _ in range(2):
            notice = self.say(NOTICE_REQUESTS, dossier, "NoticeWanted")
            self.notices.append((notice.ce_id, dossier, "sms", "sent"))
            self.say(NOTICES, dossier, "NoticeSent", notice_id=str(notice.ce_id), channel="sms")
        self.say(LIFECYCLE, dossier, "ResultReturned")
        return dossier

    def say(self, topic: str, dossier: UUID, type: str, **data: Any) -> Said:
        sequence = 1 + sum(one.topic == topic and one.dossier == dossier for one in self.said)
        one = Said(topic, dossier, sequence, type, data)
        self.said.append(one)
        self.broker.append(one)
        if topic in LISTENER:
            self.applied.append((one, 1))
        return one

    def ask(self, type: str, state: str, answer: str = "", **data: Any) -> UUID:
        """One more request of the first dossier's, and what idlookup said of it; returns its key."""
        dossier = self.submitted[0]
        wanted = self.say(WANTED, dossier, type)
        self.requests.append((wanted.ce_id, dossier, "issue" if type == "IdNumberWanted" else "verify", state))
        if answer:
            self.say(FOUND, dossier, answer, request_key=str(wanted.ce_id), **data)
        return wanted.ce_id

    def find(self, type: str, at: int = 0) -> Said:
        return [one for one in self.said if one.type == type][at]

    def unsay(self, one: Said) -> None:
        """It was never said; what its speaker said of the dossier afterwards came in its place."""
        self.said.remove(one)
        self.broker.remove(one)
        self.not_applied(one)
        for other in self.said:
            if (other.topic, other.dossier) == (one.topic, one.dossier) and other.sequence > one.sequence:
                other.sequence -= 1

    def not_applied(self, *lost: Said) -> None:
        self.applied = [(one, times) for one, times in self.applied if one not in lost]

    def swap(self, first: Said, second: Said) -> None:
        """On the broker, each stands where the other did."""
        here, there = self.broker.index(first), self.broker.index(second)
        self.broker[here], self.broker[there] = second, first

    async def play(self) -> None:
        """Write it all into the four databases and onto the broker."""
        rows: dict[str, dict[str, list[tuple[Any, ...]]]] = {name: {t: [] for t in TABLES} for name in self.dsns}
        rows["intake"]["submissions"] = [(dossier,) for dossier in self.submitted]
        for one in self.said:
            age = None if one in self.unsent else 1.0 if one in self.just_sent else 60.0
            place = (one.topic, one.dossier, one.sequence)
            rows[SPEAKER[one.topic]]["events"].append((*place, one.ce_id, one.type, age))
        for one, times in self.applied:
            rows[LISTENER[one.topic]]["applied"].append((one.topic, one.dossier, one.sequence, times))
        for one, reason in self.held:
            rows[LISTENER[one.topic]]["held"].append((one.topic, one.dossier, one.sequence, reason))
        for one, reason in self.parked:
            rows[LISTENER[one.topic]]["parked"].append((one.topic, one.dossier, one.sequence, one.ce_id, reason))
        rows["notify"]["notices"] = [(n, d, "received", channel, state) for n, d, channel, state in self.notices]
        rows["idlookup"]["id_requests"] = [
            (key, kind, state, dossier, self.due_in_s.get(key)) for key, dossier, kind, state in self.requests
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

    async def produce(self, *records: Said) -> None:
        await self.produce_raw(
            *((one.topic, str(one.dossier).encode(), one.headers(), json.dumps(one.data).encode()) for one in records)
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
        await self.play()
        return await verify.run(self.endpoints(), settle_seconds=settle_seconds)

    async def prove_again(self) -> verify.Report:
        """The world was altered once more: write the databases anew; the broker already has all of it."""
        self.broker = []
        return await self.prove()


def kinds(report: verify.Report, zero: str) -> Counter[str]:
    """How often each kind of finding is among the examples of a zero."""
    return Counter(str(example["kind"]) for example in report.as_json()["details"][zero])
