"""The work every peer does, a transaction a step: hoso's pure rules, and the rows that hoso writes for them.

A step takes a message and an open transaction, writes state and events, and returns the messages that follow. What
brings a message to its step, once or again, is the peer's own affair. Nothing of hoso's delivery is here: no lanes, no
sequence checks, no heads, nothing held or parked.
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
"""How long to wait before asking the registry again."""


class Said(BaseModel):
    """A message: whose it is, which fact, and the fact as JSON."""

    dossier_id: UUID
    ce_id: UUID
    trace_id: UUID
    kind: str
    fact: dict[str, Any]

    @classmethod
    def of(cls, dossier_id: UUID, ce_id: UUID, trace_id: UUID, fact: Fact) -> Said:
        shown = fact.model_dump(mode="json")
        return cls(dossier_id=dossier_id, ce_id=ce_id, trace_id=trace_id, kind=type(fact).__name__, fact=shown)


async def receive(tx: Tx, said: Said) -> list[Said]:
    """workflow receives a submission: a code, a dossier, its first task and events."""
    fact = DossierSubmitted.model_validate(said.fact)
    procedure = shipped()[fact.procedure_code]
    day = fact.office_at.astimezone(VIETNAM).date()
    number = await tx.fetchval(
        "insert into code_counters (agency, day, last) values ($1::text, $2::date, 1)"
        " on conflict (agency, day) do update set last = code_counters.last + 1 returning last",
        fact.receiving_agency,
        day,
    )
    dossier = lifecycle.begin(fact, said.dossier_id, said.trace_id, procedure.group)
    code = f"{fact.receiving_agency}-{day:%y%m%d}-{number:04d}"
    made = lifecycle.submitted(dossier, procedure, fact, _moment(code), open_for_reception=True)
    return await _save(tx, dossier, made)


async def take_up(tx: Tx, said: Said) -> list[Said]:
    """workflow takes up the number that was found."""
    fact = IdNumberFound.model_validate(said.fact)
    body = await tx.fetchval("select body from dossiers where dossier_id = $1::uuid for update", said.dossier_id)
    dossier = Dossier.from_json(bytes(body))
    stored = {dossier.dossier_id, *(task.task_id for task in dossier.tasks)}
    made = lifecycle.decide(dossier, shipped()[dossier.procedure_code], fact, _moment())
    return await _save(tx, dossier, made, stored)


async def tell(tx: Tx, said: Said, sealer: Sealer) -> list[Said]:
    """notify tells: nobody left a mobile phone, so the notice goes on the call list."""
    fact = NoticeWanted.model_validate(said.fact)
    contact = rules.read_contact(sealer.open(said.dossier_id, "contact", fact.sealed_contact))
    channel = rules.channels(contact, ("sms",))[0]
    await tx.execute(
        "insert into notices (notice_id, channel, dossier_id, kind, cause, dossier_code, national_status,"
        " result_due_at, receiving_agency, sealed_contact, trace_id, wanted_at, state, try_at, taken_at, settled_at)"
        " values ($1::uuid, $2::text, $3::uuid, $4::text, $5::text, $6::text, $7::smallint, $8::timestamptz, $9::text,"
        " $10::text, $11::uuid, now(), 'listed', now(), now(), now())",
        said.ce_id,
        channel,
        said.dossier_id,
        fact.kind,
        fact.cause,
        fact.dossier_code,
        fact.national_status,
        fact.due_at,
        fact.receiving_agency,
        fact.sealed_contact,
        said.trace_id,
    )
    return await _tell_once(tx, said, NoticeSent(notice_id=said.ce_id, kind=fact.kind, channel=channel))


async def note(tx: Tx, said: Said) -> list[Said]:
    """workflow notes that the person was told."""
    fact = NoticeSent.model_validate(said.fact)
    await tx.execute("delete from notices_awaited where notice_id = $1::uuid", fact.notice_id)
    return []


async def ask(http: httpx2.AsyncClient, said: Said, sealer: Sealer) -> str:
    """idlookup asks the registry, outside any transaction; the sealed number. Asking again gives the same one."""
    fact = IdNumberWanted.model_validate(said.fact)
    subject = sealer.open(said.dossier_id, "subject", fact.sealed_subject)
    body = {"kind": "issue", "subject": {**subject, "reference": str(said.dossier_id)}}
    await http.post("/v1/requests", json=body, headers={"Idempotency-Key": str(said.ce_id)})
    while (found := (await http.get(f"/v1/requests?key={said.ce_id}")).json())["state"] == "pending":
        await asyncio.sleep(PENDING_S)
    return sealer.seal(said.dossier_id, "number", found["number"])


async def found(tx: Tx, said: Said, sealed_number: str) -> list[Said]:
    """idlookup keeps the answer."""
    fact = IdNumberWanted.model_validate(said.fact)
    await tx.execute(
        "insert into requests (request_key, dossier_id, kind, sealed, trace_id, state, asked, to_send, wanted_at,"
        " next_try_at, settled_at, sealed_number)"
        " values ($1::uuid, $2::uuid, 'issue', $3::text, $4::uuid, 'found', true, false, now(), now(), now(),"
        " $5::text)",
        said.ce_id,
        said.dossier_id,
        fact.sealed_subject,
        said.trace_id,
        sealed_number,
    )
    return await _tell_once(tx, said, IdNumberFound(request_key=said.ce_id, sealed_number=sealed_number))


STEPS: dict[str, Callable[[Tx, Said], Awaitable[list[Said]]]] = {
    "DossierSubmitted": receive,
    "IdNumberFound": take_up,
    "NoticeSent": note,
}
"""What follows a message by itself; IdNumberWanted (ask, found) and NoticeWanted (tell) need keys besides."""
HEARD = (*STEPS, "IdNumberWanted", "NoticeWanted")


async def step(tx: Tx, said: Said, sealer: Sealer, sealed_number: str | None = None) -> list[Said]:
    """Whatever step a message asks for; of what follows, only what somebody listens to."""
    if said.kind == "NoticeWanted":
        made = await tell(tx, said, sealer)
    elif said.kind == "IdNumberWanted":
        assert sealed_number is not None
        made = await found(tx, said, sealed_number)
    else:
        made = await STEPS[said.kind](tx, said)
    return [one for one in made if one.kind in HEARD]


def _moment(code: str = "") -> DecisionContext:
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


async def _save(tx: Tx, dossier: Dossier, made: Decision, stored: Container[UUID] = ()) -> list[Said]:
    writes = Writes()
    tables.save_dossiers(writes, [dossier], stored)
    closed = {task.task_id: (0.0, 0.0) for task in made.tasks.values() if task.state == "closed"}
    tasks = [tables.TaskRow(dossier, task, *closed.get(task.task_id, (None, None))) for task in made.tasks.values()]
    tables.save_tasks(writes, tasks, stored)
    await writes.run(tx)
    await _append(
        tx, dossier.dossier_id, dossier.trace_id, [(told.sequence, told.ce_id, told.fact) for told in made.told]
    )
    for told in made.told:
        if isinstance(told.fact, NoticeWanted):
            await tx.execute(
                "insert into notices_awaited (notice_id, dossier_id) values ($1::uuid, $2::uuid)",
                told.ce_id,
                dossier.dossier_id,
            )
    return [Said.of(dossier.dossier_id, told.ce_id, dossier.trace_id, told.fact) for told in made.told]


async def _tell_once(tx: Tx, said: Said, fact: Fact) -> list[Said]:
    ce_id = new_id()
    await _append(tx, said.dossier_id, said.trace_id, [(1, ce_id, fact)])
    return [Said.of(said.dossier_id, ce_id, said.trace_id, fact)]


async def _append(tx: Tx, dossier_id: UUID, trace_id: UUID, facts: list[tuple[int, UUID, Fact]]) -> None:
    """All of a step's events in one statement."""
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
