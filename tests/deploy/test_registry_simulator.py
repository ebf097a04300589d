"""The registry simulator as its clients see it: keys, lost answers, forgotten keys, second numbers, a slow queue."""

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


async def submit(registry: Outside, key: str, subject: Any = CHILD, **more: Any) -> str:
    answer = await send(registry, key, subject, **more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["request_id"])


async def find(registry: Outside, key: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await registry.http.get("/v1/requests", params={"key": key})).json()
    return answer


async def final_answer(registry: Outside, key: str) -> dict[str, Any]:
    async def decided() -> dict[str, Any]:
        answer = await find(registry, key)
        return answer if answer["state"] != "pending" else {}

    return await wait_until(decided)


async def test_a_request_ends_with_a_number_that_encodes_the_birth(registry: Outside) -> None:
    request_id = await submit(registry, "a")
    found = await final_answer(registry, "a")
    assert found["state"] == "issued"
    # Province 025 is the default; 3: a woman of the 2000s; 26: the year of birth.
    assert found["number"].startswith("025326")
    assert len(found["number"]) == 12
    assert (await registry.http.get(f"/v1/requests/{request_id}")).json() == found
    assert await registry.stats() == {"requests": 1, "numbers_issued": 1, "numbers_issued_twice": 0, "in_flight": 0}


async def test_a_request_that_was_never_sent_is_unknown(registry: Outside) -> None:
    assert (await find(registry, "nobody"))["state"] == "unknown"
    assert (await registry.http.get("/v1/requests/nobody")).json()["state"] == "unknown"


async def test_a_key_gets_one_number_however_often_it_is_sent(registry: Outside) -> None:
    await registry.control(**SLOW)
    first = await submit(registry, "a")
    assert await submit(registry, "a") == first
    assert (await find(registry, "a"))["state"] == "pending"
    await registry.control(**QUICK)
    await final_answer(registry, "a")
    assert await submit(registry, "a") == first
    assert (await find(registry, "a"))["state"] == "issued"
    assert (await registry.stats())["numbers_issued"] == 1


async def test_two_keys_for_one_person_get_two_numbers_and_are_counted(registry: Outside) -> None:
    await submit(registry, "a")
    await submit(registry, "b", dict(reversed(CHILD.items())))
    await submit(registry, "c", {**CHILD, "full_name": "Nguyễn Minh Khác"})
    numbers = {(await final_answer(registry, key))["number"] for key in "abc"}
    assert len(numbers) == 3
    assert await registry.stats() == {"requests": 3, "numbers_issued": 3, "numbers_issued_twice": 1, "in_flight": 0}


async def test_a_key_cannot_be_used_for_another_person(registry: Outside) -> None:
    await submit(registry, "a")
    answer = await send(registry, "a", {"full_name": "Ai khác"})
    assert (answer.status_code, answer.json()["code"]) == (409, "key-reused")


async def test_after_a_lost_answer_the_number_exists_and_is_found_find(registry: Outside) -> None:
    await registry.control(lost_answer_rate=1)
    with pytest.raises(httpx2.ReadTimeout):
        await send(registry, "a", timeout=0.3)
    with pytest.raises(httpx2.ReadTimeout):
        await registry.http.get("/v1/requests", params={"key": "a"}, timeout=0.3)
    await registry.control(lost_answer_rate=0)
    assert (await final_answer(registry, "a"))["state"] == "issued"
    assert (await registry.stats())["requests"] == 1


async def test_forgotten_keys_are_unknown_and_can_be_sent_again(registry: Outside) -> None:
    await submit(registry, "done")
    issued = await final_answer(registry, "done")
    await registry.control(**SLOW)
    old = await submit(registry, "a", {"full_name": "A"})
    assert (await registry.control(forget_keys=True))["forget_keys"] is False
    assert (await find(registry, "a"))["state"] == "unknown"
    assert (await registry.http.get(f"/v1/requests/{old}")).json()["state"] == "unknown"
    assert await find(registry, "done") == issued
    new = await submit(registry, "a", {"full_name": "A"})
    assert new != old
    await registry.control(**QUICK)
    assert (await final_answer(registry, "a"))["state"] == "issued"
    # The forgotten request never gets a number: one number for `done`, one for `a`.
    stats = await registry.stats()
    assert (stats["numbers_issued"], stats["numbers_issued_twice"], stats["in_flight"]) == (2, 0, 0)


async def test_the_queue_is_served_at_its_capacity_and_oldest_first(registry: Outside) -> None:
    await registry.control(**QUICK, capacity_per_s=20)
    keys = [f"k{number:02d}" for number in range(20)]
    items = [{"key": key, "kind": "issue", "subject": {"full_name": key}} for key in keys]
    started = time.monotonic()
    answer = await registry.http.post("/v1/requests/batch", json={"items": items})
    assert answer.status_code == 202
    assert [item["key"] for item in answer.json()["items"]] == keys

    async def states() -> list[str]:
        answer = await registry.http.get("/v1/requests", params={"keys": ",".join(keys)})
        return [item["state"] for item in answer.json()["items"]]

    while "pending" in (seen := await states()):
        assert seen == sorted(seen), "an older request waits while a newer one has its number"
        assert time.monotonic() - started < 30
    assert time.monotonic() - started > 0.8
    assert set(seen) == {"issued"}


async def test_without_capacity_every_request_waits(registry: Outside) -> None:
    await registry.control(**QUICK, capacity_per_s=0)
    await submit(registry, "first")
    await submit(registry, "second", {"full_name": "B"})
    assert (await registry.stats())["in_flight"] >= 1
    assert (await find(registry, "second"))["state"] == "pending"
    await registry.control(capacity_per_s=200)
    assert (await final_answer(registry, "second"))["state"] == "issued"


async def test_errors_come_at_once_or_later_and_the_same_key_may_be_sent_again(registry: Outside) -> None:
    await registry.control(**QUICK, error_rate=1)
    refusals = 0
    while (answer := await send(registry, "a")).status_code == 503:
        assert answer.headers["retry-after"]
        refusals += 1
        assert refusals < 100
    assert (await final_answer(registry, "a"))["state"] == "technical-error"
    await registry.control(error_rate=0)
    assert await submit(registry, "a") == answer.json()["request_id"]
    assert (await final_answer(registry, "a"))["state"] == "issued"
    assert (await registry.stats())["numbers_issued"] == 1


async def test_a_suspected_duplicate_is_issued_only_when_confirmed_under_the_same_key(registry: Outside) -> None:
    await registry.control(**QUICK, duplicate_rate=1)
    await submit(registry, "a")
    assert (await final_answer(registry, "a"))["state"] == "duplicate-suspected"
    await submit(registry, "a")
    assert (await find(registry, "a"))["state"] == "duplicate-suspected"
    await submit(registry, "a", confirmed=True)
    assert (await final_answer(registry, "a"))["state"] == "issued"


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ({"full_name": " "}, "full-name-missing"),
        ({"full_name": "A", "birth_date": "2026-02-30"}, "birth-date-invalid"),
        ({"full_name": "A", "birth_date": "1899-12-31"}, "birth-date-out-of-range"),
        ({"child": {"full_name": ""}}, "full-name-missing"),
    ],
)
async def test_a_person_without_a_valid_name_or_birth_date_is_rejected_with_a_reason(
    registry: Outside, subject: dict[str, Any], reason: str
) -> None:
    await submit(registry, "a", subject)
    found = await final_answer(registry, "a")
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
async def test_a_person_is_known_when_the_digits_match_the_birth_date(
    registry: Outside, personal_id: str, birth_date: str | None, state: str
) -> None:
    body = {"kind": "verify", "personal_id": personal_id, "full_name": "A", "birth_date": birth_date}
    await registry.http.post("/v1/requests", headers={"Idempotency-Key": "v"}, json=body)
    assert (await final_answer(registry, "v"))["state"] == state


async def test_a_hanging_registry_answers_only_its_control(registry: Outside) -> None:
    await registry.control(hang=True)
    with pytest.raises(httpx2.ReadTimeout):
        await send(registry, "a", timeout=0.3)
    await registry.control(hang=False, down=True)
    assert (await send(registry, "a")).status_code == 503
    await registry.control(down=False)
    # Neither call was handled.
    assert (await find(registry, "a"))["state"] == "unknown"


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
async def test_a_bad_request_gets_its_reason(registry: Outside, body: bytes, code: str) -> None:
    answer = await registry.http.post("/v1/requests", headers={"Idempotency-Key": "a"}, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_a_request_without_a_key_is_refused(registry: Outside) -> None:
    answer = await registry.http.post("/v1/requests", json={"kind": "issue", "subject": CHILD})
    assert (answer.status_code, answer.json()["code"]) == (400, "key-missing")


async def test_a_bad_item_does_not_affect_the_other_items_of_a_batch(registry: Outside) -> None:
    items = [{"key": "good", "kind": "issue", "subject": CHILD}, {"key": "bad", "kind": "issue"}, 7]
    answer = await registry.http.post("/v1/requests/batch", json={"items": items})
    good, bad, number = answer.json()["items"]
    assert "request_id" in good
    assert (bad["code"], number["code"]) == ("subject-missing", "not-an-object")
    assert (await final_answer(registry, "good"))["state"] == "issued"


@pytest.mark.parametrize("wanted", [{"error_rate": 2}, {"hang": 1}, {"latency_p50_s": -1}, {"weather": 1}])
async def test_a_wrong_setting_changes_nothing(registry: Outside, wanted: dict[str, Any]) -> None:
    before = (await registry.http.get("/control")).json()
    answer = await registry.http.put("/control", json={"down": True, **wanted})
    assert answer.status_code == 400
    assert (await registry.http.get("/control")).json() == before


async def test_it_ends_quickly_even_with_an_open_call(registry: Outside) -> None:
    await registry.control(lost_answer_rate=1)
    with pytest.raises(httpx2.ReadTimeout):
        await send(registry, "a", timeout=0.2)
    registry.process.send_signal(signal.SIGTERM)
    await wait_until(lambda: registry.process.poll() is not None, 5)


async def test_a_killed_registry_keeps_its_numbers_and_forgets_undecided_requests(tmp_path: Path) -> None:
    book = "--book", str(tmp_path / "registry.jsonl")
    async with outside("deploy.registry_simulator", tmp_path, *book) as registry:
        await submit(registry, "a")
        issued = await final_answer(registry, "a")
        await registry.control(**SLOW)
        await submit(registry, "b", {**CHILD, "full_name": "Trần Thị Mẫu"})
        registry.process.kill()
    async with outside("deploy.registry_simulator", tmp_path, *book) as registry:
        assert await find(registry, "a") == issued
        assert (await find(registry, "b"))["state"] == "unknown"
        await submit(registry, "a")
        assert await find(registry, "a") == issued
        assert (await registry.stats())["numbers_issued"] == 1
        # Another key gets a second number for the same child, and numbers_issued_twice shows it.
        await submit(registry, "c")
        assert (await final_answer(registry, "c"))["number"] != issued["number"]
        assert (await registry.stats())["numbers_issued_twice"] == 1
