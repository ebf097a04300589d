"""The registry itself: requests wait in a queue, are served oldest first, and end with a number or another answer.

A key is registered when its number is issued. Until then the request exists only in this process's queue and is lost
when the process ends. Issued numbers are in the book, when there is one.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson

from deploy.registry_simulator.book import Book
from deploy.registry_simulator.faults import BadInput
from deploy.registry_simulator.numbers import first_digits, is_known, number_for, person_in, rejection_reason

PENDING, ISSUED, DUPLICATE, TECHNICAL = "pending", "issued", "duplicate-suspected", "technical-error"
FORGETTABLE = {PENDING, DUPLICATE, TECHNICAL}
BURST_S = 0.05
"""An idle registry saves up this many seconds of capacity."""
MIN_PAUSE_S = 0.002
Z95 = 1.6449
"""The 95th percentile of the standard normal distribution."""


@dataclass(slots=True)
class Settings:
    """The settings of PUT /control. Times in wall seconds; rates from 0 to 1."""

    latency_p50_s: float = 0.02
    latency_p95_s: float = 0.06
    capacity_per_s: float = 200.0
    error_rate: float = 0.0
    lost_answer_rate: float = 0.0
    duplicate_rate: float = 0.0
    hang: bool = False
    down: bool = False
    forget_keys: bool = False
    """Forget all keys without a number, once. It is false again at once."""

    def latency_s(self, z: float) -> float:
        """Return the latency at `z` standard deviations of the lognormal distribution with these two percentiles."""
        if self.latency_p50_s <= 0:
            return 0.0
        return self.latency_p50_s * math.exp(z * math.log(max(1.0, self.latency_p95_s / self.latency_p50_s)) / Z95)


@dataclass(slots=True)
class Request:
    """One request. `subject`: digest of the person; `head`: first digits of the number. No name is kept."""

    key: str
    kind: str
    subject: bytes
    verdict: str
    """The final state when no fault happens."""
    head: str = ""
    reason: str = ""
    request_id: str = field(default_factory=lambda: str(uuid4()))
    state: str = PENDING
    number: str = ""
    confirmed: bool = False
    accepted_at: float = 0.0
    z: float = 0.0
    attempt: int = 0

    def as_json(self) -> dict[str, Any]:
        answer = {"request_id": self.request_id, "key": self.key, "kind": self.kind, "state": self.state}
        if self.state == ISSUED:
            answer["number"] = self.number
        elif self.state == "rejected":
            answer["reason"] = self.reason
        return answer


class Registry:
    """Keeps everything in memory, except the numbers in `book`. `run` serves the queue; all else answers at once."""

    def __init__(self, seed: int, book: Book | None = None) -> None:
        self.settings = Settings()
        self.chance = random.Random(seed)
        self._seed = seed
        self._by_key: dict[str, Request] = {}
        self._by_id: dict[str, Request] = {}
        self._queue: deque[tuple[Request, int]] = deque()
        self._served: list[tuple[float, int, Request, int]] = []
        self._served_count = 0
        self._numbers: set[str] = set()
        self._numbers_of: Counter[bytes] = Counter()
        self._requests = 0
        self._in_flight = 0
        self._wake = asyncio.Event()
        self._book = book or Book(None)
        for noted in self._book.read():
            self._remember(Request(**{**noted, "subject": bytes.fromhex(noted["subject"])}))

    def refuse_at_once(self) -> bool:
        """Return whether to refuse a call before anything is accepted. Takes half of the error rate."""
        return self.chance.random() < self.settings.error_rate / 2

    def accept(self, key: str, body: dict[str, Any]) -> Request:
        """Accept a request, or return the one with the same key. Raises BadInput; 409 `key-reused` if they differ."""
        wanted = _read(key, body)
        known = self._by_key.get(key)
        if known is None:
            known = self._by_key[key] = self._by_id[wanted.request_id] = wanted
            self._requests += 1
        elif (known.kind, known.subject) != (wanted.kind, wanted.subject):
            raise BadInput("key-reused", "This key belongs to a request about somebody or something else.", 409)
        elif not (known.state == TECHNICAL or (known.state == DUPLICATE and wanted.confirmed)):
            return known
        known.confirmed = known.confirmed or wanted.confirmed
        known.state = PENDING
        known.attempt += 1
        known.accepted_at, known.z = time.monotonic(), self.chance.gauss(0, 1)
        self._in_flight += 1
        self._queue.append((known, known.attempt))
        self._wake.set()
        return known

    def find_by_id(self, request_id: str) -> dict[str, Any]:
        found = self._by_id.get(request_id)
        return found.as_json() if found else {"request_id": request_id, "state": "unknown"}

    def find_by_key(self, key: str) -> dict[str, Any]:
        found = self._by_key.get(key)
        return found.as_json() if found else {"key": key, "state": "unknown"}

    def stats(self) -> dict[str, int]:
        return {
            "requests": self._requests,
            "numbers_issued": len(self._numbers),
            "numbers_issued_twice": len(self._numbers) - len(self._numbers_of),
            "in_flight": self._in_flight,
        }

    def on_settings_changed(self) -> None:
        if self.settings.forget_keys:
            self.settings.forget_keys = False
            self._forget()
        self._served = [
            (request.accepted_at + self.settings.latency_s(request.z), order, request, attempt)
            for _, order, request, attempt in self._served
        ]
        heapq.heapify(self._served)
        self._wake.set()

    def _forget(self) -> None:
        """Forget every key without a number or a final answer. Requests in the queue are never issued."""
        for request in [known for known in self._by_key.values() if known.state in FORGETTABLE]:
            del self._by_key[request.key], self._by_id[request.request_id]
            self._in_flight -= request.state == PENDING
            request.state = "unknown"

    async def run(self) -> None:
        """Serve forever: `capacity_per_s` requests per second, oldest first, each ready after its own latency."""
        allowance, last = 1.0, time.monotonic()
        while True:
            self._wake.clear()
            now, capacity = time.monotonic(), self.settings.capacity_per_s
            allowance = min(max(1.0, capacity * BURST_S), allowance + (now - last) * capacity)
            last = now
            while self._queue and (allowance >= 1 or not self._is_awaited(*self._queue[0])):
                request, attempt = self._queue.popleft()
                if self._is_awaited(request, attempt):
                    allowance -= 1
                    self._served_count += 1
                    due_at = request.accepted_at + self.settings.latency_s(request.z)
                    heapq.heappush(self._served, (due_at, self._served_count, request, attempt))
            while self._served and self._served[0][0] <= now:
                _, _, request, attempt = heapq.heappop(self._served)
                if self._is_awaited(request, attempt):
                    self._decide(request)
            pauses = [self._served[0][0] - now] if self._served else []
            if self._queue and capacity > 0:
                pauses.append((1 - allowance) / capacity)
            if not pauses:
                await self._wake.wait()
                continue
            # Serve many requests per round: a thousand requests per second must not be a thousand rounds.
            await asyncio.sleep(MIN_PAUSE_S)
            if (pause := min(pauses) - MIN_PAUSE_S) > 0 and not self._wake.is_set():
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    @staticmethod
    def _is_awaited(request: Request, attempt: int) -> bool:
        return request.state == PENDING and request.attempt == attempt

    def _decide(self, request: Request) -> None:
        self._in_flight -= 1
        half = self.settings.error_rate / 2
        if self.chance.random() < half / (1 - half):
            request.state = TECHNICAL
        elif request.verdict != ISSUED:
            request.state = request.verdict
        elif not request.confirmed and self.chance.random() < self.settings.duplicate_rate:
            request.state = DUPLICATE
        else:
            request.number = number_for(request.head, self._seed, request.key, self._numbers)
            request.state = ISSUED
            self._book.note(
                key=request.key,
                kind=request.kind,
                subject=request.subject.hex(),
                verdict=request.verdict,
                head=request.head,
                request_id=request.request_id,
                state=request.state,
                number=request.number,
            )
            self._count(request)

    def _remember(self, issued: Request) -> None:
        self._by_key[issued.key] = self._by_id[issued.request_id] = issued
        self._requests += 1
        self._count(issued)

    def _count(self, issued: Request) -> None:
        self._numbers.add(issued.number)
        self._numbers_of[issued.subject] += 1


def _read(key: str, body: dict[str, Any]) -> Request:
    if not isinstance(key, str) or not 0 < len(key) <= 200 or not key.isprintable() or "," in key:
        raise BadInput("key-missing", "A request needs a key of 1 to 200 printable characters without a comma.")
    confirmed = body.get("confirmed", False)
    if not isinstance(confirmed, bool):
        raise BadInput("confirmed-not-a-switch", "confirmed must be true or false.")
    if body.get("kind") == "verify":
        person = {name: body.get(name) for name in ("personal_id", "full_name", "birth_date", "sex")}
        if not isinstance(person["personal_id"], str) or not person["personal_id"]:
            raise BadInput("personal-id-missing", "verify needs personal_id.")
        known = is_known(person["personal_id"], person["birth_date"], person["sex"])
        return Request(key, "verify", _identity(person), "match" if known else "mismatch")
    if body.get("kind") != "issue":
        raise BadInput("kind-unknown", "kind must be issue or verify.")
    subject = body.get("subject")
    if not isinstance(subject, dict) or not subject:
        raise BadInput("subject-missing", "issue needs a subject: the known data of the person.")
    reason = rejection_reason(person_in(subject))
    return Request(
        key,
        "issue",
        _identity(subject),
        "rejected" if reason else ISSUED,
        first_digits(person_in(subject)),
        reason or "",
        confirmed=confirmed,
    )


def _identity(subject: dict[str, Any]) -> bytes:
    """Return a person's identity for this registry: SHA-256 of the canonical JSON."""
    return hashlib.sha256(orjson.dumps(subject, option=orjson.OPT_SORT_KEYS)).digest()
