"""The workers and the writer while PostgreSQL refuses writes: they go on afterwards, and nobody gets two numbers."""

from __future__ import annotations

import contextlib

import pytest

from tests.fixtures.databases import MakePool
from tests.fixtures.outside import Outside
from tests.fixtures.troubles import KINDS, trouble
from tests.fixtures.waiting import wait_until
from tests.idlookup.lookup import PACKAGES, Lookup, are_answered, births, published_events


@pytest.mark.parametrize("table", ["requests", "events"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_workers_go_on_when_the_trouble_is_over(
    kind: str, table: str, make_pool: MakePool, registry: Outside
) -> None:
    """`requests`: no request can be taken; `events`: the registry has answered, but the answer cannot be stored."""
    dsn, pool = await make_pool.with_dsn(*PACKAGES)
    lookup = Lookup(pool, registry.url)
    await lookup.consume(births(10))
    async with contextlib.AsyncExitStack() as troubles:
        met = await troubles.enter_async_context(trouble(dsn, kind, table))
        async with lookup.calling():
            await met.until_met(2)
            assert await published_events(pool) == []
            await troubles.aclose()
            await wait_until(lambda: are_answered(pool, 10), 30)
    assert sorted(name for _, name, _ in await published_events(pool)) == ["IdNumberFound"] * 10
    stats = await registry.stats()
    assert (stats["numbers_issued"], stats["numbers_issued_twice"]) == (10, 0)
