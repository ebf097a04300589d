"""One stack for all journeys, on free ports, on the broker of this run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
import pytest_asyncio

from deploy.local import ports
from deploy.local.stack import EMBEDDED, Stack
from shared.clock import VIETNAM
from tests.fixtures.brokers import Apache, Embedded, Given
from tests.journeys.town import Town

Server = Embedded | Apache | Given
MONDAY = datetime(2025, 8, 25, 7, 30, tzinfo=VIETNAM)
SPEED = 3000.0
"""An office day takes half a minute, so that the hour at which a held birth is decided comes soon."""


class Connection:
    """The stack's connection to its broker: `cut` stops the broker, `mend` starts it, whichever kind it is."""

    def __init__(self, stack: Stack, server: Server | None) -> None:
        self._stack, self._server = stack, server

    async def cut(self) -> None:
        if self._server is None:
            await asyncio.to_thread(self._stack.take_down, "broker")
        else:
            await self._server.stop()

    async def mend(self) -> None:
        if self._server is None:
            await asyncio.to_thread(self._stack.bring_back, "broker")
        else:
            await self._server.start()


if os.environ.get("HOSO_TEST_KAFKA"):

    @pytest_asyncio.fixture(scope="package")
    async def given_broker(broker_of_the_run: Server) -> Server:
        """The broker of HOSO_TEST_KAFKA, empty."""
        await broker_of_the_run.start()
        await broker_of_the_run.clean()
        return broker_of_the_run

else:

    @pytest.fixture(scope="package")
    def given_broker() -> None:
        """None: the stack starts its own broker."""


@pytest_asyncio.fixture(scope="package")
async def journey(
    tmp_path_factory: pytest.TempPathFactory, given_broker: Server | None
) -> AsyncIterator[tuple[Town, Connection]]:
    stack = Stack(
        tmp_path_factory.mktemp("journeys"),
        port_base=ports.free_base(),
        broker=given_broker.kafka.servers if given_broker else EMBEDDED,
        now=MONDAY,
        speed=SPEED,
        env={"HOSO_REFRESH_S": "1", "HOSO_CALL_DEADLINE_S": "1", "HOSO_CHANNEL_DEADLINE_S": "1"},
        postgres_settings={"fsync": "off"},
    )
    try:
        await asyncio.to_thread(stack.start)
        await asyncio.to_thread(stack.wait_ready)
        town = Town(stack)
        await town.registry()
        await town.learn()
        yield town, Connection(stack, given_broker)
        await town.http.aclose()
    finally:
        await asyncio.to_thread(stack.stop)


@pytest.fixture
def town(journey: tuple[Town, Connection]) -> Town:
    return journey[0]


@pytest.fixture
def connection(journey: tuple[Town, Connection]) -> Connection:
    return journey[1]
