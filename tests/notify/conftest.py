"""The mail server and the SMS gateway, each of which runs as its own process."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest_asyncio

from deploy.local.ports import free_port
from deploy.local.processes import end, spawn
from tests.fixtures.services import ROOT
from tests.fixtures.waiting import wait_until


class MailServer:
    """`address` is HOST:PORT."""

    def __init__(self, port: int, file: Path) -> None:
        self.address, self._file = f"127.0.0.1:{port}", file

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text("utf-8").splitlines()] if self._file.exists() else []


class SmsGateway:
    def __init__(self, url: str) -> None:
        self.url = url

    async def control(self, **settings: Any) -> None:
        async with httpx2.AsyncClient(base_url=self.url) as client:
            (await client.put("/control", json=settings)).raise_for_status()

    async def stats(self) -> dict[str, Any]:
        async with httpx2.AsyncClient(base_url=self.url) as client:
            stats: dict[str, Any] = (await client.get("/control/stats")).json()
            return stats


@pytest_asyncio.fixture
async def mail_server(tmp_path: Path) -> AsyncIterator[MailServer]:
    port = free_port()
    command = [sys.executable, "-m", "tests.notify.smtp_server", str(port), str(tmp_path / "mail.jsonl")]
    process = spawn(command, log=tmp_path / "smtp.log", cwd=ROOT)

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await wait_until(answers)
        yield MailServer(port, tmp_path / "mail.jsonl")
    finally:
        end(process, signal.SIGTERM, 5)


@pytest_asyncio.fixture
async def sms_gateway(tmp_path: Path) -> AsyncIterator[SmsGateway]:
    """The simulated gateway that `hoso up` uses, without faults until a test changes it with `control`."""
    port = free_port()
    command = [sys.executable, "-m", "deploy.sms_gateway", "--port", str(port)]
    process = spawn(command, log=tmp_path / "gateway.log", cwd=ROOT)
    gateway = SmsGateway(f"http://127.0.0.1:{port}")

    async def answers() -> bool:
        try:
            return bool(await gateway.stats())
        except httpx2.HTTPError:
            return False

    try:
        await wait_until(answers)
        yield gateway
    finally:
        end(process, signal.SIGTERM, 5)
