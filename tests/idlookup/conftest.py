"""The registry simulator, which runs as its own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.fixtures.outside import Outside, outside


@pytest_asyncio.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Outside]:
    """A quick registry without faults, until a test changes it with `control`."""
    async with outside("deploy.registry_simulator", tmp_path) as system:
        await system.control(latency_p50_s=0.005, latency_p95_s=0.01, capacity_per_s=20_000)
        yield system
