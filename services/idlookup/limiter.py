"""How many calls may be in flight: grows while answers come quickly, halves when they do not."""

from __future__ import annotations

import asyncio


class AdaptiveLimit:
    """Additive increase, multiplicative decrease, between 1 and `most` calls."""

    def __init__(self, most: int, *, first: int = 2) -> None:
        self.most = most
        self.limit = float(min(first, most))
        self.in_flight = 0
        self._free = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._free:
            await self._free.wait_for(lambda: self.in_flight < int(self.limit))
            self.in_flight += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._free:
            self.in_flight -= 1
            self._free.notify_all()

    def answered(self) -> None:
        self.limit = min(self.limit + 1.0 / self.limit, float(self.most))

    def lost(self) -> None:
        self.limit = max(self.limit / 2, 1.0)
