"""A first FastStream application as its documentation suggests: one handler and one transaction per message.

It does less than hoso: no outbox (it publishes after the commit, so a crash between the two loses events), no sequence,
nothing parked or held; a repeat is noticed only where a unique index of hoso refuses it. Its offsets are committed
after the handler (NACK_ON_ERROR), because the default, ACK_FIRST, loses messages.
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

from bench.peers.setup import PeerSetup, read_command_line
from bench.peers.steps import Message, apply_number, ask, receive, record_notice, send_notice, store_number
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

    def __init__(self, setup: PeerSetup) -> None:
        self.setup = setup
        self.sealer = Sealer(setup.seal_keys)
        self.http = httpx2.AsyncClient(base_url=setup.registry, trust_env=False)
        self.broker = KafkaBroker(setup.kafka, logger=None)
        self.pool: asyncpg.Pool[asyncpg.Record]

    async def on_submitted(self, message: Message) -> None:
        await self.transact(lambda tx: receive(tx, message))

    async def on_wanted(self, message: Message) -> None:
        sealed_number = await ask(self.http, message, self.sealer)
        await self.transact(lambda tx: store_number(tx, message, sealed_number))

    async def on_found(self, message: Message) -> None:
        await self.transact(lambda tx: apply_number(tx, message))

    async def on_notice_wanted(self, message: Message) -> None:
        await self.transact(lambda tx: send_notice(tx, message, self.sealer))

    async def on_notice_sent(self, message: Message) -> None:
        await self.transact(lambda tx: record_notice(tx, message))

    async def transact(self, step: Callable[[Tx], Awaitable[list[Message]]]) -> None:
        try:
            async with self.pool.acquire() as tx, tx.transaction():
                messages = await step(tx)
        except asyncpg.UniqueViolationError:
            return  # a repeat after a rebalance; an error would make it come back forever
        for message in messages:
            topic = TOPICS.get(message.kind, LIFECYCLE)
            await self.broker.publish(message, topic=topic, key=str(message.dossier_id).encode())

    async def run(self, name: str) -> None:
        handlers = {
            "workflow": {
                "DossierSubmitted": self.on_submitted,
                "IdNumberFound": self.on_found,
                "NoticeSent": self.on_notice_sent,
            },
            "idlookup": {"IdNumberWanted": self.on_wanted},
            "notify": {"NoticeWanted": self.on_notice_wanted},
        }[name]
        for kind, handler in handlers.items():
            self.broker.subscriber(TOPICS[kind], group_id=f"naive-{kind}", **OPTIONS)(handler)
        self.pool = await asyncpg.create_pool(self.setup.dsn, min_size=1, max_size=6)
        await FastStream(self.broker, logger=None).run()


async def install(setup: PeerSetup) -> None:
    """Create the topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=setup.kafka)
    await admin.start()
    try:
        known = set(await admin.list_topics())
        topics = [topic for topic in (*TOPICS.values(), LIFECYCLE) if topic not in known]
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics])
    finally:
        await admin.close()


async def offer(setup: PeerSetup, submitted: list[Message]) -> None:
    """Put the submissions on the broker."""
    async with AIOKafkaProducer(bootstrap_servers=setup.kafka) as producer:
        sent = [
            await producer.send(
                TOPICS[message.kind], message.model_dump_json().encode(), key=str(message.dossier_id).encode()
            )
            for message in submitted
        ]
        await asyncio.gather(*sent)


if __name__ == "__main__":
    setup, worker = read_command_line()
    uvloop.run(Service(setup).run(worker))
