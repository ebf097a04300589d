"""Four real databases with nothing but the `proof` views, an empty broker for each test, a registry's statistics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from shared.kafka.settings import KafkaSettings
from tests.fixtures.databases import Databases
from tests.verify.world import PRODUCER, World

SERVICES = ("intake", "workflow", "idlookup", "notify")


@pytest_asyncio.fixture(scope="session")
async def proof_dsns(databases: Databases) -> dict[str, str]:
    """The DSNs of four databases, each with an empty `proof` schema and without a service's tables."""
    views = (Path(__file__).parent / "proof.sql").read_text(encoding="utf-8")
    dsns = {service: await databases.create() for service in SERVICES}
    for dsn in dsns.values():
        tx = await asyncpg.connect(dsn)
        await tx.execute(views)
        await tx.close()
    return dsns


@pytest_asyncio.fixture
async def stream(kafka: KafkaSettings) -> str:
    """HOST:PORT of a broker with all topics, all empty."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 12, 1) for topic in PRODUCER])
    finally:
        await admin.close()
    return kafka.servers


class Statistics:
    """Answers `GET /control/stats` as the simulator does, with the counts `twice` and `in_flight`."""

    def __init__(self) -> None:
        self.twice = 0
        self.in_flight = 0
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        counts = {"numbers_issued_twice": self.twice, "in_flight": self.in_flight}
        body = json.dumps({"requests": 3, "numbers_issued": 3, **counts})
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{head}connection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def statistics() -> AsyncIterator[Statistics]:
    statistics = Statistics()
    server = await asyncio.start_server(statistics.answer, "127.0.0.1", 0)
    statistics.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield statistics


@pytest.fixture
def world(proof_dsns: dict[str, str], stream: str, statistics: Statistics) -> World:
    """A healthy world of three births. Plant a defect, then verify."""
    return World(proof_dsns, stream, statistics.url).healthy()
