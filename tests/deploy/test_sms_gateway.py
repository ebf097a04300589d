"""The SMS gateway stand-in: it recognises a message by its key, and counts messages that are sent twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.fixtures.outside import Outside, outside

MESSAGE = {"to": "+84912345678", "channel": "sms", "text": "Hồ sơ đã có kết quả.", "reference": "n1:sms"}


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside("deploy.sms_gateway", tmp_path) as system:
        yield system


async def send(gateway: Outside, key: str | None = "n1:sms", timeout: float = 10, **changes: Any) -> httpx2.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await gateway.http.post("/messages", headers=headers, json=MESSAGE | changes, timeout=timeout)


async def ask(gateway: Outside, reference: str = "n1:sms") -> dict[str, Any]:
    answer: dict[str, Any] = (await gateway.http.get("/messages", params={"reference": reference})).json()
    return answer


async def test_a_message_is_sent_and_can_be_looked_up(gateway: Outside) -> None:
    assert (await ask(gateway))["status"] == "unknown"
    answer = await send(gateway)
    assert (answer.status_code, answer.json()["status"]) == (202, "sent")
    assert await ask(gateway) == answer.json()


async def test_the_same_key_sends_once(gateway: Outside) -> None:
    first, second = await send(gateway), await send(gateway)
    assert first.json() == second.json()
    assert await gateway.stats() == {"messages": 1, "references": 1, "sent_twice": 0}


async def test_a_message_sent_twice_without_its_key_is_counted(gateway: Outside) -> None:
    await send(gateway)
    await send(gateway, key=None)
    await send(gateway, key="n2:zalo", reference="n2:zalo", channel="zalo")
    assert await gateway.stats() == {"messages": 3, "references": 2, "sent_twice": 1}


async def test_after_a_lost_answer_the_message_is_known(gateway: Outside) -> None:
    await gateway.control(lost_answer_rate=1)
    with pytest.raises(httpx2.ReadTimeout):
        await send(gateway, timeout=0.3)
    await gateway.control(lost_answer_rate=0)
    assert (await ask(gateway))["status"] == "sent"
    assert (await gateway.stats())["messages"] == 1


async def test_an_error_or_an_outage_sends_nothing(gateway: Outside) -> None:
    await gateway.control(error_rate=1)
    assert (await send(gateway)).status_code == 503
    # A lookup sends nothing, so it is answered.
    assert (await ask(gateway))["status"] == "unknown"
    await gateway.control(error_rate=0, down=True)
    assert (await send(gateway)).status_code == 503
    assert (await gateway.stats())["messages"] == 0


async def test_a_slow_gateway_answers_late(gateway: Outside) -> None:
    await gateway.control(latency_s=30)
    with pytest.raises(httpx2.ReadTimeout):
        await send(gateway, timeout=0.3)


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"to": ""}, "to-missing"), ({"channel": "pigeon"}, "channel-unknown"), ({"text": 1}, "text-missing")],
)
async def test_a_bad_message_gets_its_reason(gateway: Outside, changes: dict[str, Any], code: str) -> None:
    answer = await send(gateway, **changes)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_a_killed_gateway_keeps_its_messages(tmp_path: Path) -> None:
    book = "--book", str(tmp_path / "sms.jsonl")
    async with outside("deploy.sms_gateway", tmp_path, *book) as gateway:
        first = (await send(gateway)).json()
        gateway.process.kill()
    with (tmp_path / "sms.jsonl").open("ab") as cut_off:
        cut_off.write(b'{"key": "n2')
    async with outside("deploy.sms_gateway", tmp_path, *book) as gateway:
        assert await ask(gateway) == first
        assert (await send(gateway)).json() == first
        await send(gateway, "n3", reference="n3")
        assert await gateway.stats() == {"messages": 2, "references": 2, "sent_twice": 0}
        gateway.process.kill()
    async with outside("deploy.sms_gateway", tmp_path, *book) as gateway:
        assert (await gateway.stats())["messages"] == 2
