"""Sends each lane's events to the broker, in order, for ever; and all of them again when the broker has lost them.

Whoever holds a lane's session lock, on a connection of its own, is the only one to send it. When that connection ends,
sending stops. A record that a dead owner had under way may still land: readers know it as a repeat. Any error of a send
means "unknown": the lane is sent again from its cursor.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog
from aiokafka import AIOKafkaProducer

from shared.contract.events import PARTITIONS
from shared.fault_points import fault_point
from shared.kafka.internals import abort, pin
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import cluster_id, ensure_topics, find_shortened
from shared.outbox import progress
from shared.outbox.batches import Shortened, send
from shared.outbox.publish import CHANNEL, Wake
from shared.outbox.state_records import StateOf, StateRecord, build_states
from shared.postgres.pool import open_connection
from shared.postgres.transient import is_transient
from shared.telemetry.metrics import DeliveryMetrics, StageMetrics, observe_all

if TYPE_CHECKING:
    import asyncpg

    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

CHUNK = 2_000
CHUNK_BYTES = 4_000_000
"""Events of one lane, and bytes of their data, in flight at most: a lane of large dossiers must not fill the memory."""
POLL_S = 1.0
WATCH_S = 2.0
SAVE_S = 0.1
"""How often the cursors are moved on. One that lags costs repeats after a crash, each move a transaction."""
MEASURE_S = 60.0
"""How often the broker's log is measured: the client reconnects to a new leader without telling us."""
SEND_DEADLINE_S = 30.0
OWNER_SILENCE_S = 15.0
"""An owner asks its connection something every `WATCH_S`; one that has not for so long hangs, and loses its lanes."""
ANSWER_S = 5.0
"""How long a database or a broker that is watched may be silent: a frozen one must not hold the watch up."""


Flying: TypeAlias = "dict[asyncio.Task[progress.Sent], int]"
"""Sends under way, and of which lane."""


class BrokerLost(Exception):
    """The broker does not hold any more what it had acknowledged."""


def _is_full(chunk: Sequence[Any]) -> bool:
    return len(chunk) >= CHUNK or sum(len(row["data"]) for row in chunk) >= CHUNK_BYTES


class Relay:
    """One process's sender. `state_of` makes the compacted state records for dossiers whose lifecycle was just sent."""

    def __init__(
        self,
        *,
        service: str,
        dsn: str,
        pool: Callable[[], Pool],
        kafka: KafkaSettings,
        wake: Wake,
        metrics: DeliveryMetrics,
        stages: StageMetrics,
        state_of: StateOf | None = None,
        state_source: str = "",
    ) -> None:
        self._service, self._dsn, self._pool, self._kafka = service, dsn, pool, kafka
        self._wake, self._metrics, self._state_of, self._source = wake, metrics, state_of, state_source
        self._stages = stages
        self._owned: dict[int, progress.Owned] = {}
        self._unsaved: list[progress.Sent] = []
        self._save_at = 0.0
        self.connected = False
        wake.owns = lambda: frozenset(self._owned)

    async def run(self) -> None:
        """Own lanes and send them until cancelled; whatever fails, try again."""
        pause = 0.1
        while True:
            try:
                await self._own_and_send()
            except BrokerLost as lost:
                self._say_lost(lost)
            except Exception as error:
                expected = is_transient(error) or type(error).__module__.startswith("aiokafka")
                log.warning("relay starts again", error=repr(error)[:200], exc_info=None if expected else error)
            finally:
                pause = 0.1 if self.connected else pause
                self._owned, self._unsaved = {}, []
                self._set_connected(False)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    def _say_lost(self, lost: BrokerLost) -> None:
        log.warning("the broker has lost what it had acknowledged: sending again from the oldest event", why=str(lost))
        self._metrics.refills.inc()

    def _set_connected(self, connected: bool) -> None:
        self.connected = connected
        self._metrics.connected.set(1 if connected else 0)

    async def _own_and_send(self) -> None:
        await ensure_topics(self._kafka)
        producer = self._kafka.producer(f"{self._service}-relay")
        owner: asyncpg.Connection[asyncpg.Record] | None = None
        try:
            await producer.start()
            over = await self._check_cluster(producer)
            self._set_connected(True)
            # Only now: with a broker that is slow to answer it would be ended for its silence.
            owner = await open_connection(self._dsn, name=f"{self._service}-relay", silence_s=OWNER_SILENCE_S)
            await self._session(owner, producer, over)
        finally:
            try:
                # Before the lock is free: nothing of ours is under way when the next owner begins to send.
                await abort(producer)
            finally:
                if owner is not None:
                    owner.terminate()

    async def _check_cluster(self, producer: AIOKafkaProducer) -> asyncio.Future[None]:
        """A cluster we have not seen holds nothing of ours: every lane goes back to its oldest event.

        Done with the answer: as soon as another cluster has answered at its address.
        """
        found = await cluster_id(producer.client)
        over = pin(producer.client, found)
        if await progress.meet_cluster(self._pool(), found):
            self._metrics.refills.inc()
            log.warning("a cluster that is new to us: everything is sent to it from the oldest event", cluster_id=found)
        else:
            await self._check_length()
        return over

    async def _check_length(self) -> None:
        """The log of the same cluster may have become shorter: brokers elected a copy that had not everything."""
        if lost := await find_shortened(self._kafka, await progress.list_marks(self._pool())):
            async with self._pool().acquire() as tx:
                await progress.start_over(tx)
            raise BrokerLost(lost)

    async def _session(
        self, owner: asyncpg.Connection[asyncpg.Record], producer: AIOKafkaProducer, over: asyncio.Future[None]
    ) -> None:
        """Send until the lock's connection has ended, or `over` is done.

        With all lanes ours, that connection is asked nothing but whether it lives: waiting for one that is dead would
        keep us from noticing.
        """

        def ended(_: Any) -> None:
            if not over.done():
                over.set_result(None)

        owner.add_termination_listener(ended)
        await owner.add_listener(CHANNEL, lambda *_: self._wake.heard(frozenset(self._owned)))
        dirty: set[int] = set()
        flying: Flying = {}
        clock = asyncio.get_running_loop().time
        watch = clock() + WATCH_S
        measure = watch + MEASURE_S
        try:
            while not over.done():
                dirty |= await self._take_lanes(owner)
                if idle := self._idle(dirty, flying):
                    after = {lane: self._owned[lane].sent_to for lane in idle}
                    chunks = await progress.next_chunks(self._pool(), after, CHUNK, CHUNK_BYTES)
                    # A full chunk means there may be more; whoever commits after this look wakes us again.
                    dirty -= {lane for lane in idle if not _is_full(chunks.get(lane, ()))}
                    states = await build_states(
                        self._pool(), self._state_of, self._source, (row for rows in chunks.values() for row in rows)
                    )
                    for lane, rows in chunks.items():
                        flying[asyncio.create_task(self._send(producer, lane, rows, states[lane]))] = lane
                self._collect(flying)
                if self._unsaved and clock() >= self._save_at:
                    await self._save()
                if not self._idle(dirty, flying):
                    dirty |= await self._wait(over, flying)
                if (now := clock()) >= watch:
                    watch = now + WATCH_S
                    await self._watch(owner, producer)
                    dirty |= set(self._owned)
                    if now >= measure:
                        measure = now + MEASURE_S
                        await self._check_length()
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
            await self._save_at_last()

    def _idle(self, dirty: set[int], flying: Flying) -> set[int]:
        """Our lanes that have something to send and nothing under way."""
        return (dirty & self._owned.keys()) - set(flying.values())

    async def _wait(self, over: asyncio.Future[None], flying: Flying) -> set[int]:
        """Until something was committed, a send has ended, it is over, or it is time to look anyway."""
        waking = asyncio.create_task(self._wake.wait())
        awaited: set[asyncio.Future[Any]] = {waking, over, *flying}
        timeout = POLL_S
        if self._unsaved:
            timeout = min(timeout, max(self._save_at - asyncio.get_running_loop().time(), 0.0))
        done, _ = await asyncio.wait(awaited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()
        return self._wake.take() if done or self._unsaved else set(self._owned)

    async def _watch(self, owner: asyncpg.Connection[asyncpg.Record], producer: AIOKafkaProducer) -> None:
        """Is the lock's connection alive, are the lanes ours, and is it still the cluster we know?"""
        # Not wait_for: in Python 3.11 it can swallow a cancellation that comes with the answer.
        async with asyncio.timeout(ANSWER_S):
            await owner.execute("select 1")
        await progress.confirm(self._pool(), self._owned)
        async with asyncio.timeout(ANSWER_S):
            found = await cluster_id(producer.client)
        if not await progress.is_known_cluster(self._pool(), found):
            raise BrokerLost(f"cluster id is now {found}")

    async def _take_lanes(self, owner: asyncpg.Connection[asyncpg.Record]) -> set[int]:
        """Lanes newly ours. Cheap when all are."""
        if len(self._owned) == PARTITIONS:
            return set()
        free = [lane for lane in range(PARTITIONS) if lane not in self._owned]
        rows = await owner.fetch("select lane from unnest($1::int[]) as lane where pg_try_advisory_lock(2, lane)", free)
        taken = [row["lane"] for row in rows]
        if taken:
            self._owned |= await progress.begin_epoch(self._pool(), taken)
            log.info("lanes taken", lanes=taken)
        return set(taken)

    async def _send(self, producer: Any, lane: int, rows: list[Any], states: Sequence[StateRecord]) -> progress.Sent:
        """Send one chunk: one batch after the other per topic, topics side by side."""
        real = sum(row["dossier_id"] is not None for row in rows)
        fault_point("relay-before-send", real)
        by_topic: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            by_topic[row["topic"]].append(row)
        for state in states:
            by_topic[state.topic].append(state)
        epoch = self._owned[lane].epoch
        try:
            # A deadline, for an idempotent producer never gives up by itself (docs/brokers.md, 6).
            async with asyncio.timeout(SEND_DEADLINE_S):
                marks = await send(producer, lane, by_topic)
        except Shortened as lost:
            await progress.confirm(self._pool(), {lane: self._owned[lane]})
            async with self._pool().acquire() as tx:
                await progress.start_over(tx)
            raise BrokerLost(str(lost)) from lost
        fault_point("relay-after-send", real)
        recorded = tuple(row["recorded_at"].timestamp() for row in rows)
        return progress.Sent(lane, epoch, rows[0]["id"], rows[-1]["id"], marks, recorded, time.time(), real)

    def _collect(self, flying: Flying) -> None:
        """Of what has ended: its lane may go on. Raises what a send has raised."""
        done = [task for task in flying if task.done()]
        if not done:
            return
        sent = [task.result() for task in done]
        for task in done:
            del flying[task]
        for row in sent:
            self._owned[row.lane].sent_to = row.to_id
        if not self._unsaved:
            self._save_at = asyncio.get_running_loop().time() + SAVE_S
        self._unsaved += sent
        observe_all(
            self._stages.wait.labels("relay", "all"),
            [max(row.sent_at - at, 0.0) for row in sent for at in row.recorded],
        )
        count = sum(row.count for row in sent)
        self._metrics.published.inc(count)
        self._stages.entered.labels("relay", "all").inc(count)
        self._stages.left.labels("relay", "sent").inc(count)

    async def _save(self) -> None:
        """Remember what was acknowledged. Raises BrokerLost, and NotOurs."""
        # Taken out first: what became of a commit may be unknown, and saved twice it would look like a loss.
        sent, self._unsaved = self._unsaved, []
        lost = await progress.advance(self._pool(), sent)
        fault_point("relay-after-cursor", sum(row.real for row in sent))
        if lost:
            raise BrokerLost(lost)

    async def _save_at_last(self) -> None:
        """At the end of a session, whatever ended it. What cannot be saved is sent again by the next owner."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._save()
        except BrokerLost as lost:
            self._say_lost(lost)
        except Exception as error:  # noqa: BLE001 - what ended the session is what counts
            log.info("places not saved", error=type(error).__name__)
