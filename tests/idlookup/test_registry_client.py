"""The client of the registry: batches, and an answer for every kind of failure. It never raises."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from deploy.local.ports import free_port
from services.idlookup.circuit_breaker import CircuitBreaker
from services.idlookup.registry import ASK_BATCH, SEND_BATCH, Registry
from shared.contract.envelope import new_id
from tests.fixtures.outside import Outside
from tests.fixtures.waiting import wait_until
from tests.idlookup.lookup import SUBJECT


@pytest_asyncio.fixture
async def client(registry: Outside) -> AsyncIterator[Registry]:
    async with httpx2.AsyncClient(base_url=registry.url, timeout=None, trust_env=False) as http:
        yield Registry(http, "issue", CircuitBreaker(failures=1000), deadline_s=0.4)


def body(key: str | None = None, **more: Any) -> dict[str, Any]:
    return {"key": key or str(new_id()), "kind": "issue", "subject": {**SUBJECT, "reference": str(new_id())}, **more}


async def states_of(client: Registry, keys: list[str]) -> set[str]:
    return {answer.state for answer in (await client.ask(keys)).values()}


async def test_many_requests_are_sent_and_asked_about_in_few_calls(client: Registry, registry: Outside) -> None:
    bodies = [body() for _ in range(2 * SEND_BATCH + 1)]
    answers = await client.send(bodies)
    assert {answer.state for answer in answers.values()} == {"sent"}
    keys = list(answers)
    assert len(keys) == len(bodies) > 2 * ASK_BATCH

    async def all_issued() -> bool:
        return await states_of(client, keys) == {"issued"}

    await wait_until(all_issued)
    answers = await client.ask(keys)
    assert all(answer.number and len(answer.number) == 12 for answer in answers.values())
    assert (await registry.stats())["numbers_issued_twice"] == 0


async def test_a_request_that_is_not_accepted_does_not_hinder_the_others(client: Registry) -> None:
    good, bad = body(), body(subject={})
    answers = await client.send([good, bad])
    assert answers[good["key"]].state == "sent"
    assert (answers[bad["key"]].state, answers[bad["key"]].reason) == ("rejected", "subject-missing")


async def test_a_key_used_for_another_person_is_a_technical_error_and_no_refusal(client: Registry) -> None:
    first = body()
    await client.send([first])
    assert (await client.send([body(first["key"])]))[first["key"]].state == "technical-error"


async def test_a_key_that_was_never_sent_is_unknown(client: Registry) -> None:
    assert await states_of(client, [str(new_id())]) == {"unknown"}


async def test_a_lost_answer_and_a_hanging_registry_take_one_deadline(client: Registry, registry: Outside) -> None:
    for trouble in ({"lost_answer_rate": 1.0}, {"hang": True}):
        await registry.control(**trouble)
        one = body()
        began = time.monotonic()
        assert (await client.send([one]))[one["key"]].state == "lost"
        assert await states_of(client, [one["key"]]) == {"lost"}
        # Two deadlines, far less than the half minute for which the registry keeps the connection open.
        assert 0.7 < time.monotonic() - began < 15.0


async def test_a_request_to_a_registry_that_is_down_may_have_arrived(client: Registry, registry: Outside) -> None:
    await registry.control(down=True)
    one = body()
    assert (await client.send([one]))[one["key"]].state == "lost"
    assert await states_of(client, [one["key"]]) == {"lost"}


@pytest.mark.parametrize("url", [f"http://127.0.0.1:{free_port()}", ""], ids=["closed port", "none configured"])
async def test_a_request_to_a_closed_port_cannot_have_arrived(url: str) -> None:
    breaker = CircuitBreaker(failures=1)
    async with httpx2.AsyncClient(base_url=url, timeout=None, trust_env=False) as http:
        client = Registry(http, "issue", breaker, deadline_s=2.0)
        one = body()
        assert (await client.send([one]))[one["key"]].state == "unreachable"
        assert await states_of(client, [one["key"]]) == {"lost"}
    assert breaker.state == "open"


async def test_an_address_that_is_no_registry_is_a_failure_and_no_refusal(registry: Outside) -> None:
    breaker = CircuitBreaker(failures=2)
    async with httpx2.AsyncClient(base_url=f"{registry.url}/control", timeout=None, trust_env=False) as http:
        client = Registry(http, "issue", breaker, deadline_s=2.0)
        one = body()
        assert (await client.send([one]))[one["key"]].state == "lost"
        assert await states_of(client, [one["key"]]) == {"lost"}
    assert breaker.state == "open"
