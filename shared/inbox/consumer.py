"""Batch in: lock, apply in sequence, decide, save, stage, commit, then acknowledge. The order is written here, once.

What happens if the process dies between any two of these: before the commit, nothing has happened and the batch comes
again; after it, the batch comes again as repeats. Acknowledging follows, when `apply` has returned (`batch_reader.py`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog

from shared.contract.envelope import Malformed, Outgoing, Received, Record
from shared.contract.events import Fact
from shared.fault_points import fault_point
from shared.inbox import store
from shared.inbox.parking_breaker import ParkingBreaker, list_new
from shared.inbox.sequence import Cause, Plan, Position, StreamKey, stream_of
from shared.kafka.prefetch import Batch
from shared.outbox.publish import Wake, append
from shared.postgres.transient import is_transient
from shared.postgres.writes import Writes
from shared.telemetry.logs import place_of, safely
from shared.telemetry.metrics import DeliveryMetrics

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

log = structlog.get_logger(__name__)


class UnitOfWork(Protocol):
    """One transaction's worth of a service's state: loaded and locked, changed by handlers, saved once."""

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Outgoing]:
        """Write what changed, or put it among the `writes` that end the transaction; everything is locked by then.

        Returns what to tell, with sequences from rows this transaction has locked.
        """
        ...

    def committed(self) -> None:
        """Called once after the commit, and only then: for metrics, and for waking whoever does the rest."""
        ...


UnitOfWorkT = TypeVar("UnitOfWorkT", bound=UnitOfWork)
Handler = Callable[[Any, Received], None]
"""`on_<fact>(work, event)`: pure; raises to say that this event can never be applied."""


class Unappliable(Exception):
    """A rule says that this event can never be applied. `reason` is a short stable code."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} {detail}".strip())
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Done:
    """What is left to do when the transaction has committed: call it."""

    wake: Wake
    lanes: set[int]
    work: UnitOfWork | None = None

    def __call__(self) -> None:
        self.wake(self.lanes)
        if self.work is not None:
            self.work.committed()


class _Poisoned(Exception):
    def __init__(self, event: Received, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.event, self.reason, self.detail = event, reason, detail


class _Braked(Exception):
    """Too much would be parked: something is wrong with us, not with the records."""


class Consumer:
    """Applies batches of records for one service.

    `open_work(tx, events)` locks and loads what the events concern; `handlers` maps a fact's class to `on_<fact>`.
    A fact without a handler only advances its sequence.
    """

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        open_work: Callable[[Tx, Sequence[Received]], Awaitable[UnitOfWorkT]],
        handlers: Mapping[type[Fact], Handler],
        wake: Wake,
        metrics: DeliveryMetrics,
        brake: ParkingBreaker | None = None,
        patience_s: float = 120.0,
    ) -> None:
        self._pool, self._open_work, self._handlers = pool, open_work, handlers
        self._wake, self._metrics = wake, metrics
        self._brake = brake or ParkingBreaker()
        self._patience_s = patience_s

    async def apply(self, records: Sequence[Record]) -> None:
        """Give every record its effect, hold it or park it. Returns only when that is committed.

        Whatever fails is retried here with back-off; after `patience_s` (below the poll interval) it is raised, so that
        the batch is fetched again, perhaps by another process.
        """
        give_up = time.monotonic() + self._patience_s
        pause = 0.05
        batch = Batch.of(records)
        while True:
            try:
                await self._apply_all(batch)
                self._metrics.brake.set(0)
                return
            except _Braked:
                self._metrics.brake.set(1)
                log.error(
                    "the brake is on: too many records cannot be applied; trying again", again_in_s=self._brake.window_s
                )
                await asyncio.sleep(self._brake.window_s)
                self._brake.reset()
                if time.monotonic() > give_up:
                    raise
            except Exception as error:
                if time.monotonic() > give_up:
                    raise
                said = log.warning if is_transient(error) else log.error
                said("batch tried again", error=safely(error), at=place_of(error), again_in_s=round(pause, 2))
                await asyncio.sleep(pause * random.uniform(0.7, 1.3))
                pause = min(pause * 2, 5.0)

    async def _apply_all(self, batch: Batch) -> None:
        events: list[Received] = []
        for record, said in zip(batch, batch.parsed, strict=True):
            if isinstance(said, Malformed):
                await self._park_stranger(record, said.reason, said.detail, len(batch))
            else:
                events.append(said)
        if events:
            await self._apply_or_split(events)

    async def _park_stranger(self, record: Record, reason: str, detail: str, handled: int) -> None:
        async with self._pool().acquire() as tx, tx.transaction():
            new = await store.park(tx, record, None, reason, detail, blocks=False)
            if new and self._brake.would_trip(handled, 1):
                raise _Braked
        if not new:
            return
        self._brake.count(0, 1)
        self._metrics.parked.labels(record.topic, reason).inc()
        log.error("record parked", topic=record.topic, partition=record.partition, offset=record.offset, reason=reason)

    async def _apply_or_split(self, events: Sequence[Received]) -> None:
        """One transaction for all; a rule that raises names its event; a data error without a name is searched for."""
        poison: dict[Position, Cause] = {}
        while True:
            try:
                await self._transact(events, poison)
                return
            except _Poisoned as found:
                if found.event.dossier_id is None:
                    await self._park_stranger(found.event.record, found.reason, found.detail, len(events))
                    events = [event for event in events if event is not found.event]
                else:
                    poison[_spot(found.event)] = Cause(found.reason, found.detail)
            except Exception as error:
                if isinstance(error, _Braked) or is_transient(error):
                    raise
                log.error("events cannot be stored", events=len(events), error=safely(error), at=place_of(error))
                break
        if len({event.dossier_id for event in events}) == 1:
            for event in events:
                await self._apply_singly([event])
            return
        for part in _halves(events):
            await self._apply_or_split(part)

    async def _apply_singly(self, events: Sequence[Received], pair: StreamKey | None = None) -> None:
        """One transaction for each event that is ready, held ones too: so that a data error has a name."""
        poison: dict[Position, Cause] = {}
        while True:
            try:
                plan = await self._transact(events, poison, pair=pair, singly=True)
            except _Poisoned as found:
                if found.event.dossier_id is None:
                    await self._park_stranger(found.event.record, found.reason, found.detail, len(events))
                    return
                poison[_spot(found.event)] = Cause(found.reason, found.detail)
                continue
            if not any(event.dossier_id for event in plan.ready):
                return

    async def _transact(
        self,
        events: Sequence[Received],
        poison: Mapping[Position, Cause],
        *,
        pair: StreamKey | None = None,
        singly: bool = False,
    ) -> Plan:
        started = time.perf_counter()
        pairs = {stream_of(event) for event in events if event.dossier_id is not None}
        pairs |= {pair} if pair else set()
        plan = Plan()
        async with self._pool().acquire() as tx:
            try:
                async with tx.transaction():
                    plan, begun = await store.plan_batch(tx, events, pairs, poison, singly=singly)
                    plan.park = await list_new(tx, plan.park)
                    if self._brake.would_trip(len(events), len(plan.park)):
                        raise _Braked
                    done = await self._decide_and_save(tx, plan, begun)
                    fault_point("consumer-before-commit", plan.at_stake)
            except Exception as error:
                if singly and plan.ready and not isinstance(error, (_Braked, _Poisoned)) and not is_transient(error):
                    raise _Poisoned(plan.ready[0], "data", safely(error)) from error
                raise
            fault_point("consumer-after-commit", plan.at_stake)
        done()
        self._count(events, plan, time.perf_counter() - started)
        return plan

    async def _decide_and_save(self, tx: Tx, plan: Plan, begun: Container[StreamKey] = ()) -> Done:
        known = [event for event in plan.ready if type(event.fact) in self._handlers]
        writes, work, lanes = Writes(), None, set[int]()
        if known:
            work = await self._open_work(tx, known)
            for event in known:
                try:
                    self._handlers[type(event.fact)](work, event)  # type: ignore[index]
                except Unappliable as refusal:
                    raise _Poisoned(event, refusal.reason, refusal.detail) from refusal
                except Exception as bug:
                    log.error("a handler raised", type=event.type, error=safely(bug), at=place_of(bug))
                    raise _Poisoned(event, "rule", safely(bug)) from bug
            outgoing = await work.save(tx, writes)
            fault_point("consumer-before-stage", plan.at_stake)
            lanes = append(writes, outgoing)
        await store.save(tx, writes, plan, begun)
        await writes.run(tx)
        return Done(self._wake, lanes, work)

    def _count(self, events: Sequence[Received], plan: Plan, seconds: float) -> None:
        self._brake.count(len(events), len(plan.park))
        self._metrics.batch_seconds.observe(seconds)
        self._metrics.batch_events.observe(len(events))
        if plan.repeats:
            self._metrics.repeated.inc(plan.repeats)
        for event, reason, detail, blocks in plan.park:
            self._metrics.parked.labels(event.topic, reason).inc()
            log.error(
                "event parked",
                topic=event.topic,
                dossier_id=str(event.dossier_id),
                sequence=event.sequence,
                reason=reason,
                detail=detail,
                blocks=blocks,
            )

    async def resume(self, tx: Tx, first: Received) -> Done:
        """Apply a parked record in the caller's transaction, alone; `drain` what stands behind it after the commit.

        Raises Unappliable when it still cannot be applied; then the transaction must not be committed. Returns what to
        call after the commit.
        """
        pairs = {stream_of(first)} if first.dossier_id is not None else set()
        plan, begun = await store.plan_batch(tx, [first], pairs, {}, singly=True)
        if refused := next((row for row in plan.park if row[0] is first), None):
            raise Unappliable(refused[1], refused[2])
        try:
            return await self._decide_and_save(tx, plan, begun)
        except _Poisoned as still:
            raise Unappliable(still.reason, still.detail) from still
        except Exception as error:
            if is_transient(error):
                raise
            raise Unappliable("data", safely(error)) from error

    async def drain(self, pair: StreamKey) -> None:
        """Apply what a place that was replayed or discarded had kept waiting; the next one that fails is parked."""
        try:
            await self._apply_singly([], pair)
        except Exception as error:  # noqa: BLE001 - what is held stays held, and the next look for gaps comes to it
            log.warning("held events not applied yet", topic=pair[0], dossier_id=str(pair[1]), error=safely(error))


def _spot(event: Received) -> Position:
    assert event.dossier_id is not None
    return Position(event.topic, event.dossier_id, event.sequence)


def _halves(events: Sequence[Received]) -> list[list[Received]]:
    """Split by dossier."""
    dossiers = list(dict.fromkeys(event.dossier_id for event in events))
    first = set(dossiers[: len(dossiers) // 2])
    return [[e for e in events if e.dossier_id in first], [e for e in events if e.dossier_id not in first]]
