"""Fixtures for all tests. What they are is in tests/fixtures."""

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
