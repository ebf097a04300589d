"""Batch in: lock, apply in sequence, decide, save, stage, commit, then acknowledge. The order is written here, once.

What happens if the process dies between any two of these: before the commit, nothing has happened and the batch comes
again; after it, the batch comes again as repeats. Acknowledging is FastStream's, after `apply` has returned.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog

from shared import journal, sequence
from shared.database import is_passing
from shared.envelope import Outgoing, Received, Record
from shared.events import Fact
from shared.faults import fault_point
from shared.metrics import DeliveryMetrics
from shared.outbox import Wake, stage
from shared.sequence import Plan, Spot

if TYPE_CHECKING:
    from shared.database import Pool, Tx

log = structlog.get_logger(__name__)


class Work(Protocol):
    """One transaction's worth of a service's state: loaded and locked, changed by handlers, saved once."""

    async def save(self, tx: Tx) -> Sequence[Outgoing]:
        """Write what changed; return what to tell, with sequences from rows this transaction has locked."""
        ...


WorkT = TypeVar("WorkT", bound=Work)
Handler = Callable[[Any, Received], None]
"""`on_<fact>(work, event)`: pure; raises to say that this event can never be applied."""


class Unappliable(Exception):
    """A rule says that this event can never be applied. `reason` is a short stable code."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} {detail}".strip())
        self.reason = reason
        self.detail = detail


class _Poisoned(Exception):
    def __init__(self, event: Received, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.event, self.reason, self.detail = event, reason, detail


class _Braked(Exception):
    """Too much would be parked: something is wrong with us, not with the records."""


class Brake:
    """Above 5 % and at least 20 parked within a minute, parking stops and a person is called."""

    def __init__(self, *, share: float = 0.05, least: int = 20, window_s: float = 60.0) -> None:
        self.share, self.least, self.window_s = share, least, window_s
        self._seen: deque[tuple[float, int, int]] = deque()

    def would_trip(self, handled: int, parked: int) -> bool:
        since = time.monotonic() - self.window_s
        while self._seen and self._seen[0][0] < since:
            self._seen.popleft()
        handled += sum(row[1] for row in self._seen)
        parked += sum(row[2] for row in self._seen)
        return parked >= self.least and parked > self.share * handled

    def count(self, handled: int, parked: int) -> None:
        self._seen.append((time.monotonic(), handled, parked))

    def reset(self) -> None:
        self._seen.clear()


class Consumer:
    """Applies batches of records for one service.

    `open_work(tx, events)` locks and loads what the events concern; `handlers` maps a fact's class to `on_<fact>`.
    A fact without a handler only advances its sequence.
    """

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        open_work: Callable[[Tx, Sequence[Received]], Awaitable[WorkT]],
        handlers: Mapping[type[Fact], Handler],
        wake: Wake,
        metrics: DeliveryMetrics,
        brake: Brake | None = None,
        patience_s: float = 120.0,
    ) -> None:
        self._pool, self._open_work, self._handlers = pool, open_work, handlers
        self._wake, self._metrics = wake, metrics
        self._brake = brake or Brake()
        self._patience_s = patience_s

    async def apply(self, records: Sequence[Record]) -> None:
        """Give every record its effect, hold it or park it. Returns only when that is committed.

        Errors that pass are retried here with back-off; after `patience_s` (below the poll interval) they are raised,
        so that the batch is fetched again.
        """
        give_up = time.monotonic() + self._patience_s
        pause = 0.05
        while True:
            try:
                await self._apply_all(records)
                return
            except _Braked:
                self._metrics.brake.set(1)
                log.error(
                    "the brake is on: too many records cannot be applied; trying again", again_in_s=self._brake.window_s
                )
                await asyncio.sleep(self._brake.window_s)
                self._brake.reset()
                self._metrics.brake.set(0)
            except Exception as error:
                if not is_passing(error) or time.monotonic() > give_up:
                    raise
                log.warning("batch tried again", error=type(error).__name__, again_in_s=round(pause, 2))
                await asyncio.sleep(pause * random.uniform(0.7, 1.3))
                pause = min(pause * 2, 5.0)

    async def _apply_all(self, records: Sequence[Record]) -> None:
        events: list[Received] = []
        for record in records:
            event, wrong = journal.readable(record)
            if event is not None:
                events.append(event)
            elif wrong is not None:
                await self._park_stranger(record, wrong.reason, wrong.detail, len(records))
        if events:
            await self._apply_or_split(events)

    async def _park_stranger(self, record: Record, reason: str, detail: str, handled: int) -> None:
        if self._brake.would_trip(handled, 1):
            raise _Braked
        async with self._pool().acquire() as tx, tx.transaction():
            await journal.park(tx, record, None, reason, detail, blocks=False)
        self._brake.count(0, 1)
        self._metrics.parked.labels(record.topic, reason).inc()
        log.error("record parked", topic=record.topic, partition=record.partition, offset=record.offset, reason=reason)

    async def _apply_or_split(self, events: Sequence[Received]) -> None:
        """One transaction for all; a rule that raises names its event; a data error without a name is searched for."""
        poison: dict[Spot, tuple[str, str]] = {}
        while True:
            try:
                await self._transact(events, poison)
                return
            except _Poisoned as found:
                if found.event.dossier_id is None:
                    await self._park_stranger(found.event.record, found.reason, found.detail, len(events))
                    events = [event for event in events if event is not found.event]
                else:
                    poison[_spot(found.event)] = (found.reason, found.detail)
            except _Braked:
                raise
            except Exception as error:
                if is_passing(error):
                    raise
                if len(events) == 1:
                    log.exception("an event cannot be stored")
                    poison[_spot(events[0])] = ("data", _safely(error))
                    if events[0].dossier_id is None:
                        await self._park_stranger(events[0].record, "data", _safely(error), 1)
                        return
                    continue
                break
        for part in _halves(events):
            await self._apply_or_split(part)

    async def _transact(self, events: Sequence[Received], poison: Mapping[Spot, tuple[str, str]]) -> None:
        started = time.perf_counter()
        async with self._pool().acquire() as tx:
            async with tx.transaction():
                pairs = {(event.topic, event.dossier_id) for event in events if event.dossier_id is not None}
                heads = await journal.lock_heads(tx, pairs)
                held = await journal.list_held(tx, pairs) if pairs else {}
                blocked = await journal.list_blocking(tx, pairs) if pairs else {}
                plan = sequence.plan(events, heads, held, blocked, poison)
                if self._brake.would_trip(len(events), len(plan.park)):
                    raise _Braked
                lanes = await self._decide_and_save(tx, plan)
                fault_point("consumer-before-commit")
            fault_point("consumer-after-commit")
        self._wake(lanes)
        self._count(events, plan, time.perf_counter() - started)

    async def _decide_and_save(self, tx: Tx, plan: Plan) -> set[int]:
        lanes: set[int] = set()
        known = [event for event in plan.ready if type(event.fact) in self._handlers]
        if known:
            work = await self._open_work(tx, known)
            for event in known:
                try:
                    self._handlers[type(event.fact)](work, event)  # type: ignore[index]
                except Unappliable as refusal:
                    raise _Poisoned(event, refusal.reason, refusal.detail) from refusal
                except Exception as bug:
                    log.exception("a handler raised", type=event.type)
                    raise _Poisoned(event, "rule", _safely(bug)) from bug
            outgoing = await work.save(tx)
            await journal.save(tx, plan)
            fault_point("consumer-before-stage")
            lanes = await stage(tx, outgoing)
        else:
            await journal.save(tx, plan)
        return lanes

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

    async def resume(self, tx: Tx, pair: sequence.Pair, first: Record | None) -> set[int]:
        """Apply a parked record's place (or only what stands behind it) in the caller's transaction.

        Raises Unappliable when it still cannot be applied; then nothing has changed. Returns the lanes to wake.
        """
        heads = await journal.lock_heads(tx, [pair])
        held = await journal.list_held(tx, [pair])
        blocked = await journal.list_blocking(tx, [pair])
        events = [event for event in (journal.readable(first)[0] if first else None,) if event is not None]
        at = heads[pair].last + 1
        if not events and (waiting := held.get(pair, {}).pop(at, None)):
            await tx.execute(
                "delete from held where topic = $1::text::topic and dossier_id = $2 and sequence = $3", *pair, at
            )
            events = [waiting]
        plan = sequence.plan(events, heads, held, blocked, {})
        if first is not None and (refused := next((row for row in plan.park if row[0].record is first), None)):
            raise Unappliable(refused[1], refused[2])
        try:
            return await self._decide_and_save(tx, plan)
        except _Poisoned as still:
            if still.event.record is first:
                raise Unappliable(still.reason, still.detail) from still
            poison = {_spot(still.event): (still.reason, still.detail)}
            return await self._decide_and_save(tx, sequence.plan(events, heads, held, blocked, poison))


def _spot(event: Received) -> Spot:
    assert event.dossier_id is not None or not event.sequenced
    return (event.topic, event.dossier_id, event.sequence)  # type: ignore[return-value]


def _halves(events: Sequence[Received]) -> list[list[Received]]:
    """Split by dossier; one dossier's events are split one by one, in order."""
    dossiers = list(dict.fromkeys(event.dossier_id for event in events))
    if len(dossiers) == 1:
        return [[event] for event in events]
    first = set(dossiers[: len(dossiers) // 2])
    return [[e for e in events if e.dossier_id in first], [e for e in events if e.dossier_id not in first]]


def _safely(error: BaseException) -> str:
    """The kind of an error and, from PostgreSQL, its code: never its text, which may quote personal data."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}{f' {state}' if state else ''}"
