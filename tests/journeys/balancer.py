"""A load balancer as docs/operations.md describes it: reads `/readyz` and sends requests to ready instances only."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from deploy.local.stack import Stack

CHECK_S = 0.2
"""Wall seconds between two checks of an instance."""


class Balancer:
    """`failed`: requests that ended neither in an answer nor in a refused connection; `answered`: number of answers."""

    def __init__(self, stack: Stack, names: dict[str, tuple[str, ...]]) -> None:
        """`names`: service -> its instances."""
        assert stack.environment is not None
        self._urls = {name: stack.environment.urls[name] for group in names.values() for name in group}
        self._names, self._tokens = names, stack.endpoints["tokens"]
        self._turn = {service: itertools.cycle(group) for service, group in names.items()}
        self._http = httpx2.AsyncClient(timeout=30, trust_env=False)
        self.ready: set[str] = set()
        self.failed: list[str] = []
        self.answered = 0

    @contextlib.asynccontextmanager
    async def checking(self) -> AsyncIterator[None]:
        """Check every instance repeatedly while the block runs."""
        tasks = [asyncio.create_task(self._check(name)) for name in self._urls]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._http.aclose()

    async def call(self, service: str, method: str, path: str, role: str, body: Any = None, **headers: str) -> Any:
        """Return the answer's JSON; {} after a failure, which is recorded. Tries the other instance when refused."""
        headers["Authorization"] = f"Bearer {self._tokens[role]}"
        content = {} if body is None else {"json": body}
        tried = []
        for _ in self._names[service]:
            name = self._choose(service, tried)
            tried.append(name)
            try:
                answer = await self._http.request(method, self._urls[name] + path, headers=headers, **content)
            except httpx2.ConnectError:
                continue
            except httpx2.HTTPError as error:
                self.failed.append(f"{name} {method} {path}: {error!r}")
                return {}
            if answer.status_code >= 400 and answer.status_code not in (404, 409):
                self.failed.append(f"{name} {method} {path}: {answer.status_code} {answer.text[:200]}")
                return {}
            self.answered += 1
            return answer.json()
        self.failed.append(f"no instance of {service} accepted {method} {path}: {tried}")
        return {}

    def _choose(self, service: str, tried: list[str]) -> str:
        ready = (self.ready & set(self._names[service])) - set(tried)
        candidates = ready or set(self._names[service]) - set(tried)
        return next(name for name in self._turn[service] if name in candidates)

    async def _check(self, name: str) -> None:
        async with httpx2.AsyncClient(timeout=5, trust_env=False) as http:
            while True:
                try:
                    answer = await http.get(self._urls[name] + "/readyz")
                    is_ready = answer.status_code == 200
                except httpx2.HTTPError:
                    is_ready = False
                (self.ready.add if is_ready else self.ready.discard)(name)
                await asyncio.sleep(CHECK_S)
