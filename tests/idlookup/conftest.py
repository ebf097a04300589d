"""The registry simulator of these tests, a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.fixtures.outside import Outside, outside


@pytest_asyncio.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Outside]:
    """Quick and without faults until a test asks for some."""
    async with outside("deploy.registry_simulator", tmp_path) as system:
        await system.control(latency_p50_s=0.005, latency_p95_s=0.01, capacity_per_s=20_000)
        yield system
