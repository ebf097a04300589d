"""The smallest service: a consumer that records its effects in a table, and a function that publishes events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prometheus_client import CollectorRegistry

from shared.contract.envelope import Outgoing, Received, new_id
from shared.contract.events import SUBMISSIONS, DossierWithdrawn, Fact, SubmissionHeartbeat, WithdrawalRequested
from shared.inbox.consumer import Consumer, Handler, Inbox, Unappliable
from shared.inbox.parking_breaker import ParkingBreaker
from shared.outbox.publish import Outbox
from shared.postgres.writes import Writes
from shared.telemetry.metrics import DeliveryMetrics
from tests.fixtures.publishing import publish
from tests.shared.records import NOON, withdrawal

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

TABLE = """
create table effects (id bigint generated always as identity, dossier_id uuid, sequence int,
                      note text check (note <> 'cannot be stored'));
create table dossiers (dossier_id uuid primary key, answers int not null default 0)
"""


class Effects:
    """The unit of work of one transaction: the rows to write."""

    def __init__(self) -> None:
        self.rows: list[tuple[UUID | None, int, str]] = []
        self.commits = 0
        """How many commits were reported to it."""

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Outgoing]:
        await tx.executemany("insert into effects (dossier_id, sequence, note) values ($1, $2, $3)", self.rows)
        return []

    def committed(self) -> None:
        self.commits += 1


def on_withdrawal_requested(unit: Effects, event: Received) -> None:
    assert isinstance(event.fact, WithdrawalRequested)
    note = event.fact.sealed_reason
    if note == "against the rule":
        raise Unappliable("no-such-thing", "and here is why")
    if note == "a bug":
        raise KeyError(note)
    unit.rows.append((event.dossier_id, event.sequence, note))


def on_submission_heartbeat(unit: Effects, event: Received) -> None:
    unit.rows.append((None, event.sequence, "heartbeat"))


HANDLERS: dict[type[Fact], Handler] = {
    WithdrawalRequested: on_withdrawal_requested,
    SubmissionHeartbeat: on_submission_heartbeat,
}


async def open_unit(tx: Tx, events: Sequence[Received]) -> Effects:
    """Lock the dossiers of the events as a service does."""
    await tx.execute(
        "insert into dossiers select distinct unnest($1::uuid[]) order by 1 on conflict do nothing",
        [event.dossier_id for event in events if event.dossier_id],
    )
    await tx.fetch(
        "select 1 from dossiers where dossier_id = any($1::uuid[]) order by dossier_id for update",
        [event.dossier_id for event in events if event.dossier_id],
    )
    return Effects()


def consumer(
    pool: Pool,
    *,
    handlers: dict[type[Fact], Handler] | None = None,
    open_unit: Callable[..., Any] = open_unit,
    breaker: ParkingBreaker | None = None,
    patience_s: float = 20.0,
) -> Consumer:
    inbox = Inbox([SUBMISSIONS], open_unit, HANDLERS if handlers is None else handlers)
    return Consumer(inbox, Outbox(lambda: pool), metrics(), breaker=breaker, patience_s=patience_s)


def metrics() -> DeliveryMetrics:
    return DeliveryMetrics(CollectorRegistry(), service="test")


async def effects(pool: Pool) -> list[tuple[UUID | None, int]]:
    """(dossier, sequence) in the order in which they took effect."""
    return [(row[0], row[1]) for row in await pool.fetch("select dossier_id, sequence from effects order by id")]


async def held(pool: Pool) -> dict[tuple[UUID, int], str]:
    return {(row[0], row[1]): row[2] for row in await pool.fetch("select dossier_id, sequence, reason from proof.held")}


async def parked(pool: Pool) -> list[tuple[UUID | None, int | None, str]]:
    rows = await pool.fetch("select dossier_id, sequence, reason from parked where state = 'parked' order by id")
    return [tuple(row) for row in rows]


async def doubles(pool: Pool) -> int:
    """How many events took effect more than once, by the log of effects."""
    return int(await pool.fetchval("select count(*) from proof.applied where times > 1"))


async def append(pool: Pool, *events: tuple[UUID, int], note: str = "") -> set[int]:
    """Append events (dossier, sequence) and commit. Returns the lanes to wake."""
    async with pool.acquire() as tx, tx.transaction():
        return await publish(tx, [Outgoing(d, n, withdrawal(note), new_id(), new_id()) for d, n in events])


WITHDRAWN = DossierWithdrawn(office_at=NOON, procedure_code="1", procedure_version=1, receiving_agency="a")


class Answering(Effects):
    """Answers each applied event with an event of its own, numbered by the dossier's row, as workflow does."""

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Outgoing]:
        await super().save(tx, writes)
        return [await answer(tx, dossier_id) for dossier_id, _, _ in self.rows if dossier_id]


async def answer(tx: Tx, dossier_id: UUID) -> Outgoing:
    number = await tx.fetchval(
        "update dossiers set answers = answers + 1 where dossier_id = $1 returning answers", dossier_id
    )
    return Outgoing(dossier_id, number, WITHDRAWN, new_id(), new_id())


async def open_answering(tx: Tx, events: Sequence[Received]) -> Answering:
    await open_unit(tx, events)
    return Answering()
