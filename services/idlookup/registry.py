"""The population registry over HTTP, in batches: send requests, ask by key. Says what is known, never raises."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import orjson
import structlog

from services.idlookup.circuit_breaker import CircuitBreaker
from services.idlookup.rules import LOST, SENT, TECHNICAL, UNREACHABLE, RegistryAnswer

log = structlog.get_logger(__name__)

SEND_BATCH = 250
SEND_BYTES = 1_000_000
ASK_BATCH = 200
"""Keys in one question: with more, the address grows over the 8 KiB that proxies take."""
NEVER_ARRIVED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
"""The last one: no registry is configured (HOSO_REGISTRY_URL is empty), so there is nobody it could have reached."""
BLAMES_THE_BODY = (400, 413, 422)
LONGEST_REASON = 80


class Registry:
    """Calls of one kind (`issue` or `verify`), with their own breaker."""

    def __init__(self, client: httpx2.AsyncClient, kind: str, breaker: CircuitBreaker, *, deadline_s: float) -> None:
        """`deadline_s`: wall seconds for one call, all of it."""
        self.kind, self.breaker = kind, breaker
        self._client, self._deadline_s = client, deadline_s

    async def send(self, bodies: Sequence[dict[str, Any]]) -> dict[str, RegistryAnswer]:
        """By key: `sent`, `technical-error`, `rejected`, `lost` (it may have arrived) or `unreachable`."""
        answers: dict[str, RegistryAnswer] = {}
        for part in _parts(bodies):
            answers |= await self._send_part(part)
        return answers

    async def _send_part(self, bodies: Sequence[dict[str, Any]]) -> dict[str, RegistryAnswer]:
        found, failure, status = await self._call("POST", "/v1/requests/batch", body={"items": list(bodies)})
        if found is not None:
            return {body["key"]: _accepted(found.get(body["key"])) for body in bodies}
        if status not in BLAMES_THE_BODY:
            return {body["key"]: RegistryAnswer(failure) for body in bodies}
        if len(bodies) == 1:
            log.error("the registry cannot read a request", request_key=bodies[0]["key"], status=status)
            return {bodies[0]["key"]: RegistryAnswer(TECHNICAL)}
        # One that it cannot read must not keep the others back.
        half = len(bodies) // 2
        return await self._send_part(bodies[:half]) | await self._send_part(bodies[half:])

    async def ask(self, keys: Sequence[str]) -> dict[str, RegistryAnswer]:
        """By key: the registry's word, or `lost`: nothing is known, and nothing was changed by asking."""
        answers: dict[str, RegistryAnswer] = {}
        for first in range(0, len(keys), ASK_BATCH):
            part = keys[first : first + ASK_BATCH]
            found, _, _ = await self._call("GET", f"/v1/requests?keys={','.join(part)}")
            answers |= {key: _told(found.get(key)) if found is not None else RegistryAnswer(LOST) for key in part}
        return answers

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any] | None, str, int]:
        """(items by key, "", status) or (None, `lost` or `unreachable`, status or 0)."""
        status = 0
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._client.request(
                    method,
                    path,
                    content=None if body is None else orjson.dumps(body),
                    headers={"Content-Type": "application/json"},
                )
            status = answer.status_code
            if status in (200, 202):
                found = {item["key"]: item for item in orjson.loads(answer.content)["items"] if item.get("key")}
                self.breaker.succeeded()
                return found, "", status
        except NEVER_ARRIVED:
            self.breaker.failed()
            return None, UNREACHABLE, 0
        except (httpx2.HTTPError, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        if status in BLAMES_THE_BODY:
            self.breaker.succeeded()
        else:
            self.breaker.failed()
        return None, LOST, status


def _parts(bodies: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for body in bodies:
        more = len(orjson.dumps(body))
        if part and (len(part) >= SEND_BATCH or size + more > SEND_BYTES):
            yield part
            part, size = [], 0
        part.append(body)
        size += more
    if part:
        yield part


def _accepted(item: dict[str, Any] | None) -> RegistryAnswer:
    if item is None:
        return RegistryAnswer(LOST)
    if "request_id" in item:
        return RegistryAnswer(SENT)
    if item.get("code") == "key-reused":
        # Ours are never used for another request: whatever this is, it is no verdict on the person.
        log.error("the registry says that a key was used for another request", request_key=item.get("key"))
        return RegistryAnswer(TECHNICAL)
    return RegistryAnswer("rejected", reason=_short(item.get("code", "not-accepted")))


def _told(item: dict[str, Any] | None) -> RegistryAnswer:
    if item is None:
        return RegistryAnswer(LOST)
    number = item.get("number")
    return RegistryAnswer(
        str(item.get("state")), str(number) if number is not None else None, _short(item.get("reason", ""))
    )


def _short(reason: object) -> str:
    """A code of the registry's. Anything longer may be a sentence that quotes a person."""
    text = str(reason)
    return text if len(text) <= LONGEST_REASON and " " not in text else "see-registry"
