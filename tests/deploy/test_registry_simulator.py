"""The registry simulator as its clients meet it: keys, lost answers, forgetting, second numbers, a slow queue."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.fixtures.outside import Outside, outside
from tests.fixtures.waiting import wait_until

CHILD = {"full_name": "Nguyễn Minh Mẫu", "birth_date": "2026-01-31", "gender": "female"}
SLOW = {"latency_p50_s": 60, "latency_p95_s": 60}
QUICK = {"latency_p50_s": 0, "latency_p95_s": 0}


@pytest_asyncio.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside("deploy.registry_simulator", tmp_path) as system:
        yield system


async def send(registry: Outside, key: str, subject: Any = CHILD, timeout: float = 10, **more: Any) -> httpx2.Response:
    body = {"kind": "issue", "subject": subject, **more}
    return await registry.http.post("/v1/requests", headers={"Idempotency-Key": key}, json=body, timeout=timeout)


async def accepted(registry: Outside, key: str, subject: Any = CHILD, **more: Any) -> str:
    answer = await send(registry, key, subject, **more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["request_id"])


async def by_key(registry: Outside, key: str) -> dict[str, Any]:
    said: dict[str, Any] = (await registry.http.get("/v1/requests", params={"key": key})).json()
    return said


async def settled(registry: Outside, key: str) -> dict[str, Any]:
    async def decided() -> dict[str, Any]:
        said = await by_key(registry, key)
        return said if said["state"] != "pending" else {}

    return await wait_until(decided)


async def test_a_request_ends_with_a_number_made_of_the_birth(registry: Outside) -> None:
    request_id = await accepted(registry, "a")
    found = await settled(registry, "a")
    assert found["state"] == "issued"
    # Province 025 when none is told, a woman of the 2000s, born in 26.
    assert found["number"].startswith("025326")
    assert len(found["number"]) == 12
    assert (await registry.http.get(f"/v1/requests/{request_id}")).json() == found
    assert await registry.stats() == {"requests": 1, "numbers_issued": 1, "numbers_issued_twice": 0, "in_flight": 0}


async def test_what_was_never_asked_is_unknown(registry: Outside) -> None:
    assert (await by_key(registry, "nobody"))["state"] == "unknown"
    assert (await registry.http.get("/v1/requests/nobody")).json()["state"] == "unknown"


async def test_one_key_is_one_number_however_often_it_is_sent(registry: Outside) -> None:
    await registry.control(**SLOW)
    first = await accepted(registry, "a")
    assert await accepted(registry, "a") == first
    assert (await by_key(registry, "a"))["state"] == "pending"
    await registry.control(**QUICK)
    await settled(registry, "a")
    assert await accepted(registry, "a") == first
    assert (await by_key(registry, "a"))["state"] == "issued"
    assert (await registry.stats())["numbers_issued"] == 1


async def test_two_keys_for_one_person_are_two_numbers_and_counted(registry: Outside) -> None:
    await accepted(registry, "a")
    await accepted(registry, "b", dict(reversed(CHILD.items())))
    await accepted(registry, "c", {**CHILD, "full_name": "Nguyễn Minh Khác"})
    numbers = {(await settled(registry, key))["number"] for key in "abc"}
    assert len(numbers) == 3
    assert await registry.stats() == {"requests": 3, "numbers_issued": 3, "numbers_issued_twice": 1, "in_flight": 0}


async def test_a_key_cannot_be_used_for_another_person(registry: Outside) -> None:
    await accepted(registry, "a")
    answer = await send(registry, "a", {"full_name": "Ai khác"})
    assert (answer.status_code, answer.json()["code"]) == (409, "key-reused")


async def test_after_a_lost_answer_the_number_exists_and_is_found_by_key(registry: Outside) -> None:
    await registry.control(lost_answer_rate=1)
    with pytest.raises(httpx2.ReadTimeout):
        await send(registry, "a", timeout=0.3)
    with pytest.raises(httpx2.ReadTimeout):
        await registry.http.get("/v1/requests", params={"key": "a"}, timeout=0.3)
    await registry.control(lost_answer_rate=0)
    assert (await settled(registry, "a"))["state"] == "issued"
    assert (await registry.stats())["requests"] == 1


async def test_forgotten_keys_are_unknown_and_can_be_sent_again(registry: Outside) -> None:
    await accepted(registry, "done")
    done = await settled(registry, "done")
    await registry.control(**SLOW)
    old = await accepted(registry, "a", {"full_name": "A"})
    assert (await registry.control(forget_keys=True))["forget_keys"] is False
    assert (await by_key(registry, "a"))["state"] == "unknown"
    assert (await registry.http.get(f"/v1/requests/{old}")).json()["state"] == "unknown"
    assert await by_key(registry, "done") == done
    new = await accepted(registry, "a", {"full_name": "A"})
    assert new != old
    await registry.control(**QUICK)
    assert (await settled(registry, "a"))["state"] == "issued"
    # The forgotten request never issues: one for `done`, one for `a`.
    stats = await registry.stats()
    assert (stats["numbers_issued"], stats["numbers_issued_twice"], stats["in_flight"]) == (2, 0, 0)


async def test_the_queue_is_served_at_its_capacity_and_oldest_first(registry: Outside) -> None:
    await registry.control(**QUICK, capacity_per_s=20)
    keys = [f"k{number:02d}" for number in range(20)]
    items = [{"key": key, "kind": "issue", "subject": {"full_name": key}} for key in keys]
    began = time.monotonic()
    answer = await registry.http.post("/v1/requests/batch", json={"items": items})
    assert answer.status_code == 202
    assert [item["key"] for item in answer.json()["items"]] == keys

    async def states() -> list[str]:
        answer = await registry.http.get("/v1/requests", params={"keys": ",".join(keys)})
        return [item["state"] for item in answer.json()["items"]]

    while "pending" in (seen := await states()):
        assert seen == sorted(seen), "an older request waits while a younger one has its number"
        assert time.monotonic() - began < 30
    assert time.monotonic() - began > 0.8
    assert set(seen) == {"issued"}


async def test_a_registry_without_capacity_keeps_everything_waiting(registry: Outside) -> None:
    await registry.control(**QUICK, capacity_per_s=0)
    await accepted(registry, "first")
    await accepted(registry, "second", {"full_name": "B"})
    assert (await registry.stats())["in_flight"] >= 1
    assert (await by_key(registry, "second"))["state"] == "pending"
    await registry.control(capacity_per_s=200)
    assert (await settled(registry, "second"))["state"] == "issued"


async def test_errors_come_at_the_door_or_later_and_the_same_key_may_try_again(registry: Outside) -> None:
    await registry.control(**QUICK, error_rate=1)
    doors = 0
    while (answer := await send(registry, "a")).status_code == 503:
        assert answer.headers["retry-after"]
        doors += 1
        assert doors < 100
    assert (await settled(registry, "a"))["state"] == "technical-error"
    await registry.control(error_rate=0)
    assert await accepted(registry, "a") == answer.json()["request_id"]
    assert (await settled(registry, "a"))["state"] == "issued"
    assert (await registry.stats())["numbers_issued"] == 1


async def test_a_suspected_duplicate_is_issued_only_when_confirmed_under_the_same_key(registry: Outside) -> None:
    await registry.control(**QUICK, duplicate_rate=1)
    await accepted(registry, "a")
    assert (await settled(registry, "a"))["state"] == "duplicate-suspected"
    await accepted(registry, "a")
    assert (await by_key(registry, "a"))["state"] == "duplicate-suspected"
    await accepted(registry, "a", confirmed=True)
    assert (await settled(registry, "a"))["state"] == "issued"


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ({"full_name": " "}, "full-name-missing"),
        ({"full_name": "A", "birth_date": "2026-02-30"}, "birth-date-invalid"),
        ({"full_name": "A", "birth_date": "1899-12-31"}, "birth-date-out-of-range"),
        ({"child": {"full_name": ""}}, "full-name-missing"),
    ],
)
async def test_a_person_nobody_can_number_is_rejected_with_a_reason(
    registry: Outside, subject: dict[str, Any], reason: str
) -> None:
    await accepted(registry, "a", subject)
    found = await settled(registry, "a")
    assert (found["state"], found["reason"]) == ("rejected", reason)
    assert (await registry.stats())["numbers_issued"] == 0


@pytest.mark.parametrize(
    ("personal_id", "birth_date", "state"),
    [
        ("025090123456", "1990-05-04", "match"),
        ("025326123456", "2026-01-31", "match"),
        ("025090123456", "1991-05-04", "mismatch"),
        ("025090123456", "2090-05-04", "mismatch"),
        ("025090123400", "1990-05-04", "mismatch"),
        ("025090123456", None, "match"),
        ("123456789", "1990-05-04", "mismatch"),
    ],
)
async def test_a_person_is_known_when_the_digits_agree_with_the_birth(
    registry: Outside, personal_id: str, birth_date: str | None, state: str
) -> None:
    body = {"kind": "verify", "personal_id": personal_id, "full_name": "A", "birth_date": birth_date}
    await registry.http.post("/v1/requests", headers={"Idempotency-Key": "v"}, json=body)
    assert (await settled(registry, "v"))["state"] == state


async def test_what_hangs_says_nothing_but_to_its_operator(registry: Outside) -> None:
    await registry.control(hang=True)
    with pytest.raises(httpx2.ReadTimeout):
        await send(registry, "a", timeout=0.3)
    await registry.control(hang=False, down=True)
    assert (await send(registry, "a")).status_code == 503
    await registry.control(down=False)
    # Neither call was ever read.
    assert (await by_key(registry, "a"))["state"] == "unknown"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "not-json"),
        (b"[]", "not-an-object"),
        (b'{"kind": "guess"}', "kind-unknown"),
        (b'{"kind": "issue"}', "subject-missing"),
        (b'{"kind": "verify"}', "personal-id-missing"),
        (b'{"kind": "issue", "subject": {"a": 1}, "confirmed": 1}', "confirmed-not-a-switch"),
    ],
)
async def test_a_bad_request_is_told_why(registry: Outside, body: bytes, code: str) -> None:
    answer = await registry.http.post("/v1/requests", headers={"Idempotency-Key": "a"}, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_a_request_without_a_key_is_refused(registry: Outside) -> None:
    answer = await registry.http.post("/v1/requests", json={"kind": "issue", "subject": CHILD})
    assert (answer.status_code, answer.json()["code"]) == (400, "key-missing")


async def test_one_bad_item_spoils_no_other_in_a_batch(registry: Outside) -> None:
    items = [{"key": "good", "kind": "issue", "subject": CHILD}, {"key": "bad", "kind": "issue"}, 7]
    answer = await registry.http.post("/v1/requests/batch", json={"items": items})
    good, bad, seven = answer.json()["items"]
    assert "request_id" in good
    assert (bad["code"], seven["code"]) == ("subject-missing", "not-an-object")
    assert (await settled(registry, "good"))["state"] == "issued"


@pytest.mark.parametrize("wanted", [{"error_rate": 2}, {"hang": 1}, {"latency_p50_s": -1}, {"weather": 1}])
async def test_a_wrong_setting_changes_nothing(registry: Outside, wanted: dict[str, Any]) -> None:
    before = (await registry.http.get("/control")).json()
    answer = await registry.http.put("/control", json={"down": True, **wanted})
    assert answer.status_code == 400
    assert (await registry.http.get("/control")).json() == before


async def test_it_ends_quickly_even_with_an_answer_owed(registry: Outside) -> None:
    await registry.control(lost_answer_rate=1)
    with pytest.raises(httpx2.ReadTimeout):
        await send(registry, "a", timeout=0.2)
    registry.process.send_signal(signal.SIGTERM)
    await wait_until(lambda: registry.process.poll() is not None, 5)


async def test_a_killed_registry_knows_its_numbers_again_and_nothing_that_was_not_decided(tmp_path: Path) -> None:
    book = "--book", str(tmp_path / "registry.jsonl")
    async with outside("deploy.registry_simulator", tmp_path, *book) as registry:
        await accepted(registry, "a")
        issued = await settled(registry, "a")
        await registry.control(**SLOW)
        await accepted(registry, "b", {**CHILD, "full_name": "Trần Thị Mẫu"})
        registry.process.kill()
    async with outside("deploy.registry_simulator", tmp_path, *book) as registry:
        assert await by_key(registry, "a") == issued
        assert (await by_key(registry, "b"))["state"] == "unknown"
        await accepted(registry, "a")
        assert await by_key(registry, "a") == issued
        assert (await registry.stats())["numbers_issued"] == 1
        # Who asks under another key gets a second number for the same child, and it shows.
        await accepted(registry, "c")
        assert (await settled(registry, "c"))["number"] != issued["number"]
        assert (await registry.stats())["numbers_issued_twice"] == 1
