"""What one writes after an evening with FastStream's documentation: a handler a message, a transaction a message.

It does less than hoso: no outbox (it publishes after the commit, so a crash between the two loses events), no sequence,
nothing parked or held; a repeat is noticed only where a unique index of hoso's refuses it. Its offsets are committed
after the handler (NACK_ON_ERROR): the default, ACK_FIRST, loses messages by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx2
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker

from bench.peers.place import Place, said_on_the_command_line
from bench.peers.steps import Said, ask, found, note, receive, take_up, tell
from shared.contract.events import PARTITIONS
from shared.privacy.sealed import Sealer

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

NAME = "naive FastStream"
WORKERS = ("workflow", "idlookup", "notify")
TOPICS = {
    "DossierSubmitted": "naive.submissions",
    "IdNumberWanted": "naive.requests",
    "IdNumberFound": "naive.results",
    "NoticeWanted": "naive.wanted",
    "NoticeSent": "naive.notices",
}
LIFECYCLE = "naive.lifecycle"
OPTIONS: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    "ack_policy": AckPolicy.NACK_ON_ERROR,
    "fetch_max_wait_ms": 20,  # as hoso on the embedded broker
    "session_timeout_ms": 3_000,
    "heartbeat_interval_ms": 1_000,
    "max_workers": 4,
}


class Service:
    """One service: its subscribers, their database and the registry."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.sealer = Sealer(place.seal_keys)
        self.http = httpx2.AsyncClient(base_url=place.registry, trust_env=False)
        self.broker = KafkaBroker(place.kafka, logger=None)
        self.pool: asyncpg.Pool[asyncpg.Record]

    async def on_submitted(self, said: Said) -> None:
        await self.transact(lambda tx: receive(tx, said))

    async def on_wanted(self, said: Said) -> None:
        sealed_number = await ask(self.http, said, self.sealer)
        await self.transact(lambda tx: found(tx, said, sealed_number))

    async def on_found(self, said: Said) -> None:
        await self.transact(lambda tx: take_up(tx, said))

    async def on_notice_wanted(self, said: Said) -> None:
        await self.transact(lambda tx: tell(tx, said, self.sealer))

    async def on_notice_sent(self, said: Said) -> None:
        await self.transact(lambda tx: note(tx, said))

    async def transact(self, step: Callable[[Tx], Awaitable[list[Said]]]) -> None:
        try:
            async with self.pool.acquire() as tx, tx.transaction():
                made = await step(tx)
        except asyncpg.UniqueViolationError:
            return  # a repeat after a rebalance: else it would come back for ever
        for one in made:
            topic = TOPICS.get(one.kind, LIFECYCLE)
            await self.broker.publish(one, topic=topic, key=str(one.dossier_id).encode())

    async def run(self, name: str) -> None:
        listening = {
            "workflow": {
                "DossierSubmitted": self.on_submitted,
                "IdNumberFound": self.on_found,
                "NoticeSent": self.on_notice_sent,
            },
            "idlookup": {"IdNumberWanted": self.on_wanted},
            "notify": {"NoticeWanted": self.on_notice_wanted},
        }[name]
        for kind, handler in listening.items():
            self.broker.subscriber(TOPICS[kind], group_id=f"naive-{kind}", **OPTIONS)(handler)
        self.pool = await asyncpg.create_pool(self.place.dsn, min_size=1, max_size=6)
        await FastStream(self.broker, logger=None).run()


async def install(place: Place) -> None:
    """The topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=place.kafka)
    await admin.start()
    try:
        known = set(await admin.list_topics())
        topics = [topic for topic in (*TOPICS.values(), LIFECYCLE) if topic not in known]
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics])
    finally:
        await admin.close()


async def offer(place: Place, submitted: list[Said]) -> None:
    """Put the submissions on the broker."""
    async with AIOKafkaProducer(bootstrap_servers=place.kafka) as producer:
        sent = [
            await producer.send(TOPICS[said.kind], said.model_dump_json().encode(), key=str(said.dossier_id).encode())
            for said in submitted
        ]
        await asyncio.gather(*sent)


if __name__ == "__main__":
    where, worker = said_on_the_command_line()
    uvloop.run(Service(where).run(worker))
