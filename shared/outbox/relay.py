"""Sends each lane's events to the broker in order, and sends all of them again when the broker has lost them.

The owner of a lane holds the lane's session lock, on a connection of its own, and is the only one to send the lane.
When that connection ends, sending stops. A record that a dead owner had in flight may still arrive: readers treat it as
a repeat. After any error of a send it is unknown what arrived, so the lane is sent again from its cursor.
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
from shared.telemetry.logs import safely
from shared.telemetry.metrics import DeliveryMetrics, StageMetrics, observe_all

if TYPE_CHECKING:
    import asyncpg

    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

CHUNK = 2_000
CHUNK_BYTES = 4_000_000
"""At most so many events of one lane, and bytes of their data, are in flight: large dossiers must fit into memory."""
POLL_S = 1.0
"""A commit whose wake-up was lost is noticed after this time."""
WATCH_S = 2.0
"""Time between two checks of the lock's connection, the lanes and the cluster."""
SAVE_S = 0.1
"""Time between two saves of the cursors. A later save costs more repeats after a crash, each save a transaction."""
MEASURE_S = 60.0
"""Time between two checks of the log's length: aiokafka reconnects to a newly elected leader without reporting it."""
SEND_DEADLINE_S = 30.0
OWNER_SILENCE_S = 15.0
"""After this time without a statement PostgreSQL ends an owner's connection and so its locks: the owner hangs."""
ANSWER_S = 5.0
"""How long a check waits for the database or the broker, so that a frozen one does not block the relay."""


InFlight: TypeAlias = "dict[asyncio.Task[progress.Sent], int]"
"""Each send in flight, and its lane."""


class BrokerLost(Exception):
    """The broker no longer holds what it had acknowledged."""


def _is_full(chunk: Sequence[Any]) -> bool:
    return len(chunk) >= CHUNK or sum(len(row["data"]) for row in chunk) >= CHUNK_BYTES


class Relay:
    """Sends the events of the lanes that this process owns.

    `state_of` builds the state records of the dossiers that have an event of the topic `state_source` in a chunk.
    """

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
        """Own lanes and send them until cancelled; begin again after any failure."""
        pause = 0.1
        while True:
            try:
                await self._own_and_send()
            except BrokerLost as loss:
                self._report_loss(loss)
            except Exception as error:
                expected = is_transient(error) or type(error).__module__.startswith("aiokafka")
                log.warning("relay starts again", error=repr(error)[:200], exc_info=None if expected else error)
            finally:
                pause = 0.1 if self.connected else pause
                self._owned, self._unsaved = {}, []
                self._set_connected(False)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    def _report_loss(self, loss: BrokerLost) -> None:
        log.warning("the broker has lost what it had acknowledged: sending again from the oldest event", why=str(loss))
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
            session_end = await self._check_cluster(producer)
            self._set_connected(True)
            # Opened last: PostgreSQL would end the silent connection while a slow broker answers.
            owner = await open_connection(self._dsn, name=f"{self._service}-relay", silence_s=OWNER_SILENCE_S)
            await self._session(owner, producer, session_end)
        finally:
            try:
                # Before the lock is free, so that nothing is in flight when the next owner begins to send.
                await abort(producer)
            finally:
                if owner is not None:
                    owner.terminate()

    async def _check_cluster(self, producer: AIOKafkaProducer) -> asyncio.Future[None]:
        """Save which cluster this is. A new cluster is empty, so every lane is set back to its oldest event.

        Returns a future that is done as soon as another cluster answers at this one's address.
        """
        present_id = await cluster_id(producer.client)
        session_end = pin(producer.client, present_id)
        if await progress.save_cluster(self._pool(), present_id):
            self._metrics.refills.inc()
            log.warning("a new cluster: everything is sent to it from the oldest event", cluster_id=present_id)
        else:
            await self._check_length()
        return session_end

    async def _check_length(self) -> None:
        """Raise BrokerLost when the log lacks acknowledged records: the brokers have elected a replica without them."""
        if loss := await find_shortened(self._kafka, await progress.list_acknowledged(self._pool())):
            async with self._pool().acquire() as tx:
                await progress.start_over(tx)
            raise BrokerLost(loss)

    async def _session(
        self,
        owner: asyncpg.Connection[asyncpg.Record],
        producer: AIOKafkaProducer,
        session_end: asyncio.Future[None],
    ) -> None:
        """Send until the lock's connection ends, or `session_end` is done.

        While this process owns all lanes, that connection is used only to check that it lives: with a query on a dead
        connection the relay would wait and not notice its end.
        """

        def end_session(_: Any) -> None:
            if not session_end.done():
                session_end.set_result(None)

        owner.add_termination_listener(end_session)
        await owner.add_listener(CHANNEL, lambda *_: self._wake.notified(frozenset(self._owned)))
        dirty: set[int] = set()  # lanes that may have something to send
        in_flight: InFlight = {}
        clock = asyncio.get_running_loop().time
        watch_at = clock() + WATCH_S
        measure_at = watch_at + MEASURE_S
        try:
            while not session_end.done():
                dirty |= await self._take_lanes(owner)
                if idle := self._idle(dirty, in_flight):
                    after = {lane: self._owned[lane].sent_to for lane in idle}
                    chunks = await progress.next_chunks(self._pool(), after, CHUNK, CHUNK_BYTES)
                    # After a full chunk there may be more; a commit after this query wakes the relay again.
                    dirty -= {lane for lane in idle if not _is_full(chunks.get(lane, ()))}
                    states = await build_states(
                        self._pool(), self._state_of, self._source, (row for rows in chunks.values() for row in rows)
                    )
                    for lane, rows in chunks.items():
                        in_flight[asyncio.create_task(self._send(producer, lane, rows, states[lane]))] = lane
                self._collect_sent(in_flight)
                if self._unsaved and clock() >= self._save_at:
                    await self._save()
                if not self._idle(dirty, in_flight):
                    dirty |= await self._wait(session_end, in_flight)
                if (now := clock()) >= watch_at:
                    watch_at = now + WATCH_S
                    await self._watch(owner, producer)
                    dirty |= set(self._owned)
                    if now >= measure_at:
                        measure_at = now + MEASURE_S
                        await self._check_length()
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)
            await self._save_at_end()

    def _idle(self, dirty: set[int], in_flight: InFlight) -> set[int]:
        """The owned lanes that may have something to send and have nothing in flight."""
        return (dirty & self._owned.keys()) - set(in_flight.values())

    async def _wait(self, session_end: asyncio.Future[None], in_flight: InFlight) -> set[int]:
        """Wait for a commit, the end of a send or of the session, or the next poll. Returns the lanes to look at."""
        waking = asyncio.create_task(self._wake.wait())
        awaited: set[asyncio.Future[Any]] = {waking, session_end, *in_flight}
        timeout = POLL_S
        if self._unsaved:
            timeout = min(timeout, max(self._save_at - asyncio.get_running_loop().time(), 0.0))
        done, _ = await asyncio.wait(awaited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()
        return self._wake.take() if done or self._unsaved else set(self._owned)

    async def _watch(self, owner: asyncpg.Connection[asyncpg.Record], producer: AIOKafkaProducer) -> None:
        """Raise when the lock's connection is dead, a lane has another owner, or another cluster answers."""
        # Not wait_for: in Python 3.11 it can swallow a cancellation that comes with the answer.
        async with asyncio.timeout(ANSWER_S):
            await owner.execute("select 1")
        await progress.confirm(self._pool(), self._owned)
        async with asyncio.timeout(ANSWER_S):
            present_id = await cluster_id(producer.client)
        if not await progress.is_known_cluster(self._pool(), present_id):
            raise BrokerLost(f"cluster id is now {present_id}")

    async def _take_lanes(self, owner: asyncpg.Connection[asyncpg.Record]) -> set[int]:
        """Lock the lanes that no process owns. Returns the new ones. Sends no query while this process owns all."""
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
        """Send one chunk. Raises BrokerLost, NotOwner, KafkaError, and TimeoutError after `SEND_DEADLINE_S`."""
        at_stake = sum(row["dossier_id"] is not None for row in rows)
        fault_point("relay-before-send", at_stake)
        by_topic: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            by_topic[row["topic"]].append(row)
        for state in states:
            by_topic[state.topic].append(state)
        epoch = self._owned[lane].epoch
        try:
            # An idempotent producer never gives up by itself (docs/brokers.md, 6).
            async with asyncio.timeout(SEND_DEADLINE_S):
                acknowledged = await send(producer, lane, by_topic)
        except Shortened as loss:
            await progress.confirm(self._pool(), {lane: self._owned[lane]})
            async with self._pool().acquire() as tx:
                await progress.start_over(tx)
            raise BrokerLost(str(loss)) from loss
        fault_point("relay-after-send", at_stake)
        recorded = tuple(row["recorded_at"].timestamp() for row in rows)
        return progress.Sent(lane, epoch, rows[0]["id"], rows[-1]["id"], acknowledged, recorded, time.time(), at_stake)

    def _collect_sent(self, in_flight: InFlight) -> None:
        """Remove the sends that have ended from `in_flight` and count them. Raises what a send has raised."""
        done = [task for task in in_flight if task.done()]
        if not done:
            return
        sent = [task.result() for task in done]
        for task in done:
            del in_flight[task]
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
        """Save the acknowledged chunks. Raises BrokerLost and NotOwner."""
        # Removed first: if the outcome of a commit is unknown, saving the same chunk again would look like a loss.
        sent, self._unsaved = self._unsaved, []
        loss = await progress.advance(self._pool(), sent)
        fault_point("relay-after-cursor", sum(row.at_stake for row in sent))
        if loss:
            raise BrokerLost(loss)

    async def _save_at_end(self) -> None:
        """Save at the end of a session, whatever the cause. The next owner sends again what cannot be saved."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._save()
        except BrokerLost as loss:
            self._report_loss(loss)
        except Exception as error:  # noqa: BLE001 - the error that ended the session is more important
            log.info("acknowledged offsets not saved", error=safely(error))
