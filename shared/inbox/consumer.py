"""From a batch's arrival to its commit: the order of all steps, written once for every service.

1. lock the stream positions of the dossiers concerned, and plan: what to apply, hold, park, or ignore as a repeat;
2. load and lock the service's own state (`open_unit`), and let its handlers decide;
3. save what changed, append the events that follow, record how far each stream was processed;
4. commit; then `apply` returns and `batch_reader` notes the offsets, which it commits to Kafka twice a second.

When the process dies before the commit, nothing is stored and the batch is delivered again. When it dies after the
commit, the batch is delivered again as well, and its events are recognised as repeats.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from shared.contract.envelope import Malformed, Outgoing, Received, Record, StreamKey
from shared.contract.events import Fact
from shared.fault_points import fault_point
from shared.inbox import store
from shared.inbox.parking_breaker import ParkingBreaker, list_new
from shared.inbox.sequence import Cause, Plan, Position
from shared.kafka.prefetch import Batch
from shared.outbox.publish import Outbox, PublishingTransaction
from shared.postgres.transient import is_transient
from shared.postgres.writes import Writes
from shared.telemetry.logs import place_of, safely
from shared.telemetry.metrics import DeliveryMetrics

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

log = structlog.get_logger(__name__)


class UnitOfWork(Protocol):
    """A service's state in one transaction: loaded and locked, changed by handlers, saved once."""

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Outgoing]:
        """Write what changed, or add it to the `writes` that end the transaction. Every row is locked already.

        Returns the events to publish, with sequences from rows that this transaction has locked.
        """
        ...

    def committed(self) -> None:
        """Called once after the commit, never after a rollback: to count metrics and wake workers."""
        ...


Handler = Callable[[Any, Received], None]
"""`on_<fact>(unit, event)`: pure; raises Unappliable for an event that can never be applied."""


class Unappliable(Exception):
    """This event can never be applied: a rule refuses it. `reason` is a short stable code."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} {detail}".strip())
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Inbox:
    """What a service consumes: its topics, the function that locks and loads its state, a handler for each fact."""

    topics: Sequence[str]
    open_unit: Callable[[Tx, Sequence[Received]], Awaitable[UnitOfWork]]
    handlers: Mapping[type[Fact], Handler]
    relaxed: bool = False
    """Nobody waits for these events: the broker is polled rarely, even under load."""


class _Poisoned(Exception):
    """This event of the batch must be parked, and the transaction repeated without it."""

    def __init__(self, event: Received, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.event, self.reason, self.detail = event, reason, detail


class _Tripped(Exception):
    """Too much would be parked: this service is at fault, not the records."""


class Consumer:
    """Applies batches of records for one service. A fact without a handler only advances its stream's position."""

    def __init__(
        self,
        inbox: Inbox,
        outbox: Outbox,
        metrics: DeliveryMetrics,
        *,
        breaker: ParkingBreaker | None = None,
        patience_s: float = 120.0,
    ) -> None:
        """`patience_s`: wall seconds of retries before a batch is given back; less than the client's poll interval."""
        self._inbox, self._outbox, self._metrics = inbox, outbox, metrics
        self._breaker = breaker or ParkingBreaker()
        self._patience_s = patience_s

    async def apply(self, records: Sequence[Record]) -> None:
        """Apply, hold or park every record. Returns when that is committed.

        A batch that fails is retried with back-off. After `patience_s` the error is raised: the batch is fetched again,
        perhaps by another process.
        """
        give_up_at = time.monotonic() + self._patience_s
        pause = 0.05
        batch = Batch.of(records)
        while True:
            try:
                await self._apply_all(batch)
                self._metrics.brake.set(0)
                return
            except _Tripped:
                self._metrics.brake.set(1)
                log.error(
                    "parking breaker open: too many records cannot be applied; consuming has stopped, next try follows",
                    again_in_s=self._breaker.window_s,
                )
                await asyncio.sleep(self._breaker.window_s)
                self._breaker.reset()
                if time.monotonic() > give_up_at:
                    raise
            except Exception as error:
                if time.monotonic() > give_up_at:
                    raise
                report = log.warning if is_transient(error) else log.error
                report("batch is retried", error=safely(error), at=place_of(error), again_in_s=round(pause, 2))
                await asyncio.sleep(pause * random.uniform(0.7, 1.3))
                pause = min(pause * 2, 5.0)

    async def _apply_all(self, batch: Batch) -> None:
        events: list[Received] = []
        for record, parsed in zip(batch, batch.parsed, strict=True):
            if isinstance(parsed, Malformed):
                await self._park_unsequenced(record, parsed.reason, parsed.detail, len(batch))
            else:
                events.append(parsed)
        if events:
            await self._apply_or_split(events)

    async def _park_unsequenced(self, record: Record, reason: str, detail: str, handled: int) -> None:
        """Park a record that belongs to no stream, so that no other waits for it."""
        async with self._outbox.transaction() as transaction:
            is_new = await store.park(transaction.tx, record, None, reason, detail, blocks=False)
            if is_new and self._breaker.would_trip(handled, 1):
                raise _Tripped
        if not is_new:
            return
        self._breaker.count(0, 1)
        self._metrics.parked.labels(record.topic, reason).inc()
        log.error("record parked", topic=record.topic, partition=record.partition, offset=record.offset, reason=reason)

    async def _apply_or_split(self, events: Sequence[Received]) -> None:
        """Apply all in one transaction. After a data error, which names no event, halve the batch until it is found."""
        poison: dict[Position, Cause] = {}
        while True:
            try:
                await self._transact(events, poison)
                return
            except _Poisoned as poisoned:
                if poisoned.event.dossier_id is None:
                    await self._park_unsequenced(poisoned.event.record, poisoned.reason, poisoned.detail, len(events))
                    events = [event for event in events if event is not poisoned.event]
                else:
                    poison[_position(poisoned.event)] = Cause(poisoned.reason, poisoned.detail)
            except Exception as error:
                if isinstance(error, _Tripped) or is_transient(error):
                    raise
                log.error(
                    "batch cannot be stored, bisecting", events=len(events), error=safely(error), at=place_of(error)
                )
                break
        if len({event.dossier_id for event in events}) == 1:
            for event in events:
                await self._apply_singly([event])
            return
        for part in _halves(events):
            await self._apply_or_split(part)

    async def _apply_singly(self, events: Sequence[Received], stream: StreamKey | None = None) -> None:
        """One transaction per event that is ready, also of those held in `stream`: so a data error names its event."""
        poison: dict[Position, Cause] = {}
        while True:
            try:
                plan = await self._transact(events, poison, stream=stream, singly=True)
            except _Poisoned as poisoned:
                if poisoned.event.dossier_id is None:
                    await self._park_unsequenced(poisoned.event.record, poisoned.reason, poisoned.detail, len(events))
                    return
                poison[_position(poisoned.event)] = Cause(poisoned.reason, poisoned.detail)
                continue
            if not any(event.dossier_id for event in plan.ready):
                return

    async def _transact(
        self,
        events: Sequence[Received],
        poison: Mapping[Position, Cause],
        *,
        stream: StreamKey | None = None,
        singly: bool = False,
    ) -> Plan:
        """Steps 1 to 4 for `events` and what is held in `stream`, in one transaction. `singly`: apply one at most."""
        started = time.perf_counter()
        streams = {event.stream for event in events if event.stream is not None}
        streams |= {stream} if stream else set()
        plan = Plan()
        try:
            async with self._outbox.transaction() as transaction:
                plan, begun = await store.plan_batch(transaction.tx, events, streams, poison, singly=singly)
                plan.park = await list_new(transaction.tx, plan.park)
                if self._breaker.would_trip(len(events), len(plan.park)):
                    raise _Tripped
                transaction.on_commit(lambda: fault_point("consumer-after-commit", plan.at_stake))
                await self._decide_and_save(transaction, plan, begun)
                await transaction.flush()
                fault_point("consumer-before-commit", plan.at_stake)
        except Exception as error:
            if singly and plan.ready and not isinstance(error, (_Tripped, _Poisoned)) and not is_transient(error):
                raise _Poisoned(plan.ready[0], "data", safely(error)) from error
            raise
        self._count(events, plan, time.perf_counter() - started)
        return plan

    async def _decide_and_save(
        self, transaction: PublishingTransaction, plan: Plan, begun: Container[StreamKey] = ()
    ) -> None:
        """Steps 2 and 3: apply `plan.ready` to the service's state. Raises _Poisoned for an event that is refused."""
        known = [event for event in plan.ready if type(event.fact) in self._inbox.handlers]
        if known:
            unit = await self._inbox.open_unit(transaction.tx, known)
            for event in known:
                try:
                    self._inbox.handlers[type(event.fact)](unit, event)  # type: ignore[index]
                except Unappliable as refusal:
                    raise _Poisoned(event, refusal.reason, refusal.detail) from refusal
                except Exception as bug:
                    log.error("a handler raised", type=event.type, error=safely(bug), at=place_of(bug))
                    raise _Poisoned(event, "rule", safely(bug)) from bug
            outgoing = await unit.save(transaction.tx, transaction.writes)
            fault_point("consumer-before-stage", plan.at_stake)
            transaction.append(outgoing)
            transaction.on_commit(unit.committed)
        await store.save(transaction.tx, transaction.writes, plan, begun)

    def _count(self, events: Sequence[Received], plan: Plan, seconds: float) -> None:
        self._breaker.count(len(events), len(plan.park))
        self._metrics.batch_seconds.observe(seconds)
        self._metrics.batch_events.observe(len(events))
        if plan.repeats:
            self._metrics.repeated.inc(plan.repeats)
        for row in plan.park:
            self._metrics.parked.labels(row.event.topic, row.reason).inc()
            log.error(
                "event parked",
                topic=row.event.topic,
                dossier_id=str(row.event.dossier_id),
                sequence=row.event.sequence,
                reason=row.reason,
                detail=row.detail,
                blocks=row.blocks,
            )

    async def resume(self, transaction: PublishingTransaction, event: Received) -> None:
        """Apply one parked event in the caller's transaction. Call `drain` for its stream after the commit.

        Raises Unappliable when the event still cannot be applied; then the transaction must not be committed.
        """
        streams = {event.stream} if event.stream is not None else set()
        plan, begun = await store.plan_batch(transaction.tx, [event], streams, {}, singly=True)
        if refused := next((row for row in plan.park if row.event is event), None):
            raise Unappliable(refused.reason, refused.detail)
        try:
            await self._decide_and_save(transaction, plan, begun)
            await transaction.flush()
        except _Poisoned as still:
            raise Unappliable(still.reason, still.detail) from still
        except Exception as error:
            if is_transient(error):
                raise
            raise Unappliable("data", safely(error)) from error

    async def drain(self, stream: StreamKey) -> None:
        """Apply what is held in `stream` after its parked event was replayed or discarded; park the next that fails.

        Raises nothing: what cannot be applied now stays held.
        """
        try:
            await self._apply_singly([], stream)
        except Exception as error:  # noqa: BLE001 - the next search for gaps finds what is still held
            topic, dossier_id = stream
            log.warning("held events not applied yet", topic=topic, dossier_id=str(dossier_id), error=safely(error))


def _position(event: Received) -> Position:
    assert event.dossier_id is not None
    return Position(event.topic, event.dossier_id, event.sequence)


def _halves(events: Sequence[Received]) -> list[list[Received]]:
    """The events in two parts, each with all events of its dossiers."""
    dossiers = list(dict.fromkeys(event.dossier_id for event in events))
    first = set(dossiers[: len(dossiers) // 2])
    return [[e for e in events if e.dossier_id in first], [e for e in events if e.dossier_id not in first]]
