"""The population registry over HTTP, in batches: send requests, and ask about them by key. It never raises."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import httpx2
import orjson
import structlog

from services.idlookup.circuit_breaker import CircuitBreaker
from services.idlookup.rules import LOST, SENT, TECHNICAL, UNREACHABLE, RegistryAnswer

log = structlog.get_logger(__name__)

SEND_BATCH = 250
SEND_BYTES = 1_000_000
ASK_BATCH = 200
"""Keys in one question: with more, the address grows over the 8 KiB that proxies accept."""
CANNOT_HAVE_ARRIVED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
"""The last one means that no registry is configured (HOSO_REGISTRY_URL is empty)."""
BODY_IS_WRONG = (400, 413, 422)
"""Statuses with which the registry answers for itself: it works, but does not accept this body."""
MAX_REASON_CHARACTERS = 80


class Registry:
    """Calls of one kind (`issue` or `verify`), with their own circuit breaker."""

    def __init__(self, client: httpx2.AsyncClient, kind: str, breaker: CircuitBreaker, *, deadline_s: float) -> None:
        """`deadline_s`: wall seconds for one whole call."""
        self.kind, self.breaker, self.deadline_s = kind, breaker, deadline_s
        self._client = client

    async def send(self, bodies: Sequence[dict[str, Any]]) -> dict[str, RegistryAnswer]:
        """By key: `sent`, `technical-error`, `rejected`, `lost` (it may have arrived) or `unreachable`."""
        answers: dict[str, RegistryAnswer] = {}
        for batch in _batches(bodies):
            answers |= await self._send_batch(batch)
        return answers

    async def _send_batch(self, bodies: Sequence[dict[str, Any]]) -> dict[str, RegistryAnswer]:
        result = await self._call("POST", "/v1/requests/batch", body={"items": list(bodies)})
        if result.items is not None:
            return {body["key"]: _acknowledgement_of(result.items.get(body["key"])) for body in bodies}
        if result.status not in BODY_IS_WRONG:
            return {body["key"]: RegistryAnswer(result.failure) for body in bodies}
        if len(bodies) == 1:
            log.error("the registry cannot read a request", request_key=bodies[0]["key"], status=result.status)
            return {bodies[0]["key"]: RegistryAnswer(TECHNICAL)}
        # A request that the registry cannot read must not delay the others.
        half = len(bodies) // 2
        return await self._send_batch(bodies[:half]) | await self._send_batch(bodies[half:])

    async def ask(self, keys: Sequence[str]) -> dict[str, RegistryAnswer]:
        """By key: the registry's state of the request, or `lost`: no answer came. Asking changes nothing there."""
        answers: dict[str, RegistryAnswer] = {}
        for first in range(0, len(keys), ASK_BATCH):
            batch = keys[first : first + ASK_BATCH]
            items = (await self._call("GET", f"/v1/requests?keys={','.join(batch)}")).items
            answers |= {key: _answer_of(items.get(key)) if items is not None else RegistryAnswer(LOST) for key in batch}
        return answers

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> _CallResult:
        status = 0
        try:
            async with asyncio.timeout(self.deadline_s):
                response = await self._client.request(
                    method,
                    path,
                    content=None if body is None else orjson.dumps(body),
                    headers={"Content-Type": "application/json"},
                )
            status = response.status_code
            if status in (200, 202):
                items = {item["key"]: item for item in orjson.loads(response.content)["items"] if item.get("key")}
                self.breaker.record_success()
                return _CallResult(items, status)
        except CANNOT_HAVE_ARRIVED:
            self.breaker.record_failure()
            return _CallResult(None, 0, UNREACHABLE)
        except (httpx2.HTTPError, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        if status in BODY_IS_WRONG:
            self.breaker.record_success()
        else:
            self.breaker.record_failure()
        return _CallResult(None, status, LOST)


class _CallResult(NamedTuple):
    """`items` by key, or None with `failure` (`lost` or `unreachable`). `status`: 0 without an HTTP answer."""

    items: dict[str, Any] | None
    status: int
    failure: str = ""


def _batches(bodies: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Batches of at most `SEND_BATCH` requests and about `SEND_BYTES`."""
    batch: list[dict[str, Any]] = []
    batch_bytes = 0
    for body in bodies:
        body_bytes = len(orjson.dumps(body))
        if batch and (len(batch) >= SEND_BATCH or batch_bytes + body_bytes > SEND_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(body)
        batch_bytes += body_bytes
    if batch:
        yield batch


def _acknowledgement_of(item: dict[str, Any] | None) -> RegistryAnswer:
    if item is None:
        return RegistryAnswer(LOST)
    if "request_id" in item:
        return RegistryAnswer(SENT)
    if item.get("code") == "key-reused":
        # We never use a key for another request, so this is an error of the registry and says nothing of the person.
        log.error("the registry answers that a key was used for another request", request_key=item.get("key"))
        return RegistryAnswer(TECHNICAL)
    return RegistryAnswer("rejected", reason=_code_or_hint(item.get("code", "not-accepted")))


def _answer_of(item: dict[str, Any] | None) -> RegistryAnswer:
    if item is None:
        return RegistryAnswer(LOST)
    number = item.get("number")
    return RegistryAnswer(
        str(item.get("state")), str(number) if number is not None else None, _code_or_hint(item.get("reason", ""))
    )


def _code_or_hint(reason: object) -> str:
    """The registry's code; `see-registry` for anything longer, which may be a sentence that quotes a person."""
    text = str(reason)
    return text if len(text) <= MAX_REASON_CHARACTERS and " " not in text else "see-registry"
