"""The work of every peer, one transaction per step: hoso's pure rules, and the rows that hoso writes for them.

A step takes a message and an open transaction, writes state and events, and returns the messages that follow. How a
message comes to its step, once or again, is the peer's own part. Nothing of hoso's delivery is here: no lanes, no
sequence checks, no stream positions, nothing held or parked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx2
from pydantic import BaseModel

from services.notify import rules
from services.workflow import lifecycle, tables
from services.workflow.clock.calendar import WorkingCalendar
from services.workflow.lifecycle import Decision, DecisionContext, Dossier
from services.workflow.procedures import shipped
from shared.clock import VIETNAM, wall_now
from shared.contract.envelope import new_id
from shared.contract.events import DossierSubmitted, Fact, IdNumberFound, IdNumberWanted, NoticeSent, NoticeWanted
from shared.contract.partitions import lane_of
from shared.postgres.writes import Writes
from shared.privacy.sealed import Sealer

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

CALENDAR = WorkingCalendar()
PENDING_S = 0.005
"""Pause before the registry is asked again."""


class Message(BaseModel):
    """A message: its dossier, the type of its event, and the event as JSON."""

    dossier_id: UUID
    ce_id: UUID
    trace_id: UUID
    kind: str
    fact: dict[str, Any]

    @classmethod
    def of(cls, dossier_id: UUID, ce_id: UUID, trace_id: UUID, fact: Fact) -> Message:
        content = fact.model_dump(mode="json")
        return cls(dossier_id=dossier_id, ce_id=ce_id, trace_id=trace_id, kind=type(fact).__name__, fact=content)


async def receive(tx: Tx, message: Message) -> list[Message]:
    """workflow receives a submission: dossier code, dossier, first task, events."""
    fact = DossierSubmitted.model_validate(message.fact)
    procedure = shipped()[fact.procedure_code]
    day = fact.office_at.astimezone(VIETNAM).date()
    number = await tx.fetchval(
        "insert into code_counters (agency, day, last) values ($1::text, $2::date, 1)"
        " on conflict (agency, day) do update set last = code_counters.last + 1 returning last",
        fact.receiving_agency,
        day,
    )
    dossier = lifecycle.begin(fact, message.dossier_id, message.trace_id, procedure.group)
    code = f"{fact.receiving_agency}-{day:%y%m%d}-{number:04d}"
    decision = lifecycle.submitted(dossier, procedure, fact, _context(code), open_for_reception=True)
    return await _save(tx, dossier, decision)


async def apply_number(tx: Tx, message: Message) -> list[Message]:
    """workflow applies the number that was found."""
    fact = IdNumberFound.model_validate(message.fact)
    body = await tx.fetchval("select body from dossiers where dossier_id = $1::uuid for update", message.dossier_id)
    dossier = Dossier.from_json(bytes(body))
    stored = {dossier.dossier_id, *(task.task_id for task in dossier.tasks)}
    decision = lifecycle.decide(dossier, shipped()[dossier.procedure_code], fact, _context())
    return await _save(tx, dossier, decision, stored)


async def send_notice(tx: Tx, message: Message, sealer: Sealer) -> list[Message]:
    """notify sends the notice: the applicant has no mobile phone, so it goes on the call list."""
    fact = NoticeWanted.model_validate(message.fact)
    contact = rules.read_contact(sealer.open(message.dossier_id, "contact", fact.sealed_contact))
    channel = rules.channels(contact, ("sms",))[0]
    await tx.execute(
        "insert into notices (notice_id, channel, dossier_id, kind, cause, dossier_code, national_status,"
        " result_due_at, receiving_agency, sealed_contact, trace_id, wanted_at, state, try_at, taken_at, settled_at)"
        " values ($1::uuid, $2::text, $3::uuid, $4::text, $5::text, $6::text, $7::smallint, $8::timestamptz, $9::text,"
        " $10::text, $11::uuid, now(), 'listed', now(), now(), now())",
        message.ce_id,
        channel,
        message.dossier_id,
        fact.kind,
        fact.cause,
        fact.dossier_code,
        fact.national_status,
        fact.due_at,
        fact.receiving_agency,
        fact.sealed_contact,
        message.trace_id,
    )
    return await _emit_one(tx, message, NoticeSent(notice_id=message.ce_id, kind=fact.kind, channel=channel))


async def record_notice(tx: Tx, message: Message) -> list[Message]:
    """workflow records that the notice was sent."""
    fact = NoticeSent.model_validate(message.fact)
    await tx.execute("delete from notices_awaited where notice_id = $1::uuid", fact.notice_id)
    return []


async def ask(http: httpx2.AsyncClient, message: Message, sealer: Sealer) -> str:
    """idlookup asks the registry, outside a transaction. Returns the sealed number; a second call returns the same."""
    fact = IdNumberWanted.model_validate(message.fact)
    subject = sealer.open(message.dossier_id, "subject", fact.sealed_subject)
    body = {"kind": "issue", "subject": {**subject, "reference": str(message.dossier_id)}}
    await http.post("/v1/requests", json=body, headers={"Idempotency-Key": str(message.ce_id)})
    while (answer := (await http.get(f"/v1/requests?key={message.ce_id}")).json())["state"] == "pending":
        await asyncio.sleep(PENDING_S)
    return sealer.seal(message.dossier_id, "number", answer["number"])


async def store_number(tx: Tx, message: Message, sealed_number: str) -> list[Message]:
    """idlookup stores the answer."""
    fact = IdNumberWanted.model_validate(message.fact)
    await tx.execute(
        "insert into requests (request_key, dossier_id, kind, sealed, trace_id, state, asked, to_send, wanted_at,"
        " next_try_at, settled_at, sealed_number)"
        " values ($1::uuid, $2::uuid, 'issue', $3::text, $4::uuid, 'found', true, false, now(), now(), now(),"
        " $5::text)",
        message.ce_id,
        message.dossier_id,
        fact.sealed_subject,
        message.trace_id,
        sealed_number,
    )
    return await _emit_one(tx, message, IdNumberFound(request_key=message.ce_id, sealed_number=sealed_number))


STEPS: dict[str, Callable[[Tx, Message], Awaitable[list[Message]]]] = {
    "DossierSubmitted": receive,
    "IdNumberFound": apply_number,
    "NoticeSent": record_notice,
}
"""Type of message -> its step. IdNumberWanted (ask, store_number) and NoticeWanted (send_notice) also need the keys."""
CONSUMED = (*STEPS, "IdNumberWanted", "NoticeWanted")


async def step(tx: Tx, message: Message, sealer: Sealer, sealed_number: str | None = None) -> list[Message]:
    """Run the step of a message. Returns the messages that follow and have a consumer."""
    if message.kind == "NoticeWanted":
        following = await send_notice(tx, message, sealer)
    elif message.kind == "IdNumberWanted":
        assert sealed_number is not None
        following = await store_number(tx, message, sealed_number)
    else:
        following = await STEPS[message.kind](tx, message)
    return [each for each in following if each.kind in CONSUMED]


def _context(code: str = "") -> DecisionContext:
    now = wall_now()
    return DecisionContext(
        wall=now,
        office=now,
        calendar=CALENDAR,
        in_force=lambda code, _: shipped().get(code),
        new_id=new_id,
        code_for=lambda _, __: code,
        take_blank=lambda _: None,
    )


async def _save(tx: Tx, dossier: Dossier, decision: Decision, stored: Container[UUID] = ()) -> list[Message]:
    writes = Writes()
    tables.save_dossiers(writes, [dossier], stored)
    closed = {task.task_id: (0.0, 0.0) for task in decision.tasks.values() if task.state == "closed"}
    tasks = [tables.TaskRow(dossier, task, *closed.get(task.task_id, (None, None))) for task in decision.tasks.values()]
    tables.save_tasks(writes, tasks, stored)
    await writes.run(tx)
    await _append(
        tx,
        dossier.dossier_id,
        dossier.trace_id,
        [(event.sequence, event.ce_id, event.fact) for event in decision.events],
    )
    for event in decision.events:
        if isinstance(event.fact, NoticeWanted):
            await tx.execute(
                "insert into notices_awaited (notice_id, dossier_id) values ($1::uuid, $2::uuid)",
                event.ce_id,
                dossier.dossier_id,
            )
    return [Message.of(dossier.dossier_id, event.ce_id, dossier.trace_id, event.fact) for event in decision.events]


async def _emit_one(tx: Tx, message: Message, fact: Fact) -> list[Message]:
    ce_id = new_id()
    await _append(tx, message.dossier_id, message.trace_id, [(1, ce_id, fact)])
    return [Message.of(message.dossier_id, ce_id, message.trace_id, fact)]


async def _append(tx: Tx, dossier_id: UUID, trace_id: UUID, facts: list[tuple[int, UUID, Fact]]) -> None:
    """Insert all events of a step in one statement."""
    lane = lane_of(str(dossier_id))
    await tx.execute(
        "insert into events (lane, topic, dossier_id, sequence, ce_id, type, trace_id, data)"
        " select $1::smallint, e.topic::topic, $2::uuid, e.sequence, e.ce_id, e.type, $3::uuid, e.data"
        " from unnest($4::text[], $5::int[], $6::uuid[], $7::text[], $8::bytea[])"
        " as e (topic, sequence, ce_id, type, data)",
        lane,
        dossier_id,
        trace_id,
        [fact.topic for _, _, fact in facts],
        [sequence for sequence, _, _ in facts],
        [ce_id for _, ce_id, _ in facts],
        [type(fact).__name__ for _, _, fact in facts],
        [fact.model_dump_json().encode() for _, _, fact in facts],
    )
