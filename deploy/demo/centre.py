"""What the demo's officers share: the endpoints, the office clock, and HTTP calls with a token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from datetime import time as hour
from typing import Any

import httpx2

from shared.clock import OfficeClock

OPEN = ((hour(7, 30), hour(11, 30)), (hour(13, 30), hour(17, 0)))


class Centre:
    """The one-stop centre: one HTTP client for all officers. `agency(n)` is the identifier of commune n (fictional)."""

    def __init__(self, endpoints: Mapping[str, Any], clock: OfficeClock, client: httpx2.AsyncClient) -> None:
        self.endpoints, self.clock, self.client = endpoints, clock, client
        self.news = asyncio.Condition()
        """Notified when the public feed has brought events."""
        self.refused: dict[str, int] = {}
        """Problem code -> how many calls were refused with it."""
        self.at_work: set[str] = set()
        """Tasks that an officer here works on. Colleagues see each other and do not take the same task."""

    def agency(self, commune: int) -> str:
        return "H44.XXX" if commune == 0 else f"H44.X{commune:02d}"

    async def call(
        self, service: str, method: str, path: str, role: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        """Call a service. Returns (status, JSON). Tries again while the service is down."""
        while True:
            try:
                answer = await self.client.request(
                    method,
                    self.endpoints[service] + path,
                    json=body,
                    headers={"Authorization": f"Bearer {self.endpoints['tokens'][role]}", **headers},
                    timeout=20,
                )
            except httpx2.HTTPError:
                await asyncio.sleep(0.2)
                continue
            if answer.status_code == 503:
                await asyncio.sleep(0.2)
                continue
            if answer.status_code >= 400:
                code = answer.json().get("code", "?")
                self.refused[code] = self.refused.get(code, 0) + 1
            return answer.status_code, answer.json()

    async def until(self, office: datetime) -> None:
        """Sleep until that office time."""
        await asyncio.sleep(max(self.clock.wall(office) - time.time(), 0.0))

    async def work(self, office_seconds: float, since: datetime | None = None) -> None:
        """Sleep for so many seconds of office hours. `since`: the work began then, so what has passed is taken off."""
        if since is not None:
            office_seconds -= min(max((self.clock.now() - since).total_seconds(), 0.0), office_seconds)
        while office_seconds > 0:
            await self.until_open()
            now = self.clock.now()
            closes = next(end for begin, end in OPEN if begin <= now.time() < end)
            left = (now.replace(hour=closes.hour, minute=closes.minute, second=0, microsecond=0) - now).total_seconds()
            step = min(office_seconds, left)
            await asyncio.sleep(step / self.clock.speed)
            office_seconds -= step

    async def until_open(self) -> None:
        """Sleep until the office is open; return at once if it is."""
        now = self.clock.now()
        if any(begin <= now.time() < end for begin, end in OPEN):
            return
        begins = [now.replace(hour=begin.hour, minute=begin.minute, second=0, microsecond=0) for begin, _ in OPEN]
        await self.until(min(begin if begin > now else begin + timedelta(days=1) for begin in begins))

    async def some_news(self, at_most_s: float) -> None:
        """Wait until the feed brings events, at most so long. The short sleep makes one wake-up of many events."""
        await asyncio.sleep(0.03)
        async with self.news:
            try:
                async with asyncio.timeout(at_most_s):
                    await self.news.wait()
            except TimeoutError:
                return

    async def follow_feed(self) -> None:
        """Read the public events and wake the officers who wait for work."""
        path = "/v1/events?limit=500&wait=5"
        while True:
            try:
                answer = await self.client.get(
                    self.endpoints["workflow"] + path,
                    headers={"Authorization": f"Bearer {self.endpoints['tokens']['system']}"},
                    timeout=20,
                )
                following = answer.headers["link"].partition("<")[2].partition(">")[0]
                path = f"{following}&wait=5"
                if answer.json():
                    async with self.news:
                        self.news.notify_all()
            except (httpx2.HTTPError, KeyError):
                await asyncio.sleep(0.2)
