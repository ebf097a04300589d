"""Fixtures for all tests. What they are is in tests/fixtures."""

import os

import pytest
from hypothesis import HealthCheck, settings

from deploy.local import ports
from tests.fixtures.brokers import broker, broker_of_the_run, kafka
from tests.fixtures.databases import databases, make_pool, pool, postgres
from tests.fixtures.services import start_service, tokens

__all__ = [
    "broker",
    "broker_of_the_run",
    "databases",
    "kafka",
    "make_pool",
    "pool",
    "postgres",
    "start_service",
    "tokens",
]


# How long making an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("hoso", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hoso")


def pytest_configure(config: pytest.Config) -> None:
    """Test processes that run side by side (pytest-xdist) never look for a free port where another does."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        os.environ[ports.SHARE] = f"{int(worker.removeprefix('gw')) + 1}/{os.environ['PYTEST_XDIST_WORKER_COUNT']}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A run on another broker is about the broker: what never meets one has been tested by `make test`."""
    if not os.environ.get("HOSO_TEST_KAFKA"):
        return
    kept = [item for item in items if item.path.parent.name == "kafka" or _meets_a_broker(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _meets_a_broker(item: pytest.Item) -> bool:
    return "broker_of_the_run" in getattr(item, "fixturenames", ())
