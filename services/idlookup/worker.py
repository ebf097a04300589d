"""The callers: take due requests, oldest first, ask the registry, hand on what it says. No transaction waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import structlog

from services.idlookup import rules, store
from services.idlookup.registry import ASK_BATCH, SEND_BATCH, Registry
from services.idlookup.rules import LOST, PENDING, SENT, TECHNICAL, UNREACHABLE, RegistryAnswer, Request
from services.idlookup.sealed_fields import SEALED_AS
from services.idlookup.window import Window
from shared.fault_points import fault_point
from shared.postgres.leases import wait_for
from shared.postgres.transient import is_transient
from shared.privacy.sealed import Sealer, Tampered

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

SENDS, ASKS = 4, 2
"""Calls of one kind under way at once."""
LEASE_IN_DEADLINES = 3
"""Taken up, asked after, sent and watched: a lease of three deadlines outlives it."""
QUICK_S = 1.0
"""What is not answered so soon goes back to the database, and is looked at again when it is due."""
GATHER_S = 0.01
SOON_S = 0.02
UNHURRIED_S = 0.1
IDLE_S = 1.0
"""An idle caller looks this often; what arrives in this process it is told of at once."""


class RegistryWorker:
    """One kind's callers (`issue` or `verify`): their own limit, breaker and pace."""

    def __init__(
        self,
        *,
        registry: Registry,
        window: Window,
        pool: Callable[[], Pool],
        sealer: Sealer,
        hand_on: Callable[[Request, RegistryAnswer], None],
        deadline_s: float,
    ) -> None:
        """`deadline_s`: wall seconds of one call."""
        self.registry, self.window, self.breaker = registry, window, registry.breaker
        self._kind, self._pool, self._sealer, self._hand_on = registry.kind, pool, sealer, hand_on
        self._deadline_s = deadline_s
        self._due = asyncio.Event()
        self._sends: set[asyncio.Task[None]] = set()
        self._asks: set[asyncio.Task[None]] = set()
        self._watched: list[tuple[float, int, float, float, Request]] = []
        """Heap of (look at, order, pause, sent at, request): sent a moment ago, the answer may come at once."""
        self._order = count()
        self._left_over = True
        """Whether something may be due that was not taken up for want of room. Without it, room is no news."""
        self._has_watched = asyncio.Event()

    def wake(self) -> None:
        """Requests may be due. Cheap; calling it too early only costs a query."""
        self._due.set()

    async def run(self) -> None:
        """Call until cancelled; then what is under way is given a deadline, and the rest goes back unharmed."""
        watcher = asyncio.create_task(self._watch())
        taker = asyncio.create_task(self._take_for_ever())
        try:
            ended, _ = await asyncio.wait((watcher, taker), return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            taker.cancel()
            if under_way := self._sends | self._asks:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(under_way, timeout=self._deadline_s)
            watcher.cancel()
            for task in under_way:
                task.cancel()
            await asyncio.gather(watcher, taker, *under_way, return_exceptions=True)
            for *_, request in self._watched:
                self._hand_on(request, RegistryAnswer(PENDING))
            self._watched.clear()

    async def _take_for_ever(self) -> None:
        recovering = False
        while True:
            if (rest_s := self.breaker.rest_s()) > 0:
                recovering = True
                await asyncio.sleep(min(rest_s, IDLE_S))
                continue
            if not self.breaker.allow():
                await wait_for(self._due, SOON_S)
                self._due.clear()
                continue
            probing = self.breaker.state != "closed"
            self._due.clear()
            self._left_over = True  # until a look has shown that nothing is
            try:
                if recovering and not probing:
                    await store.end_pauses(self._pool(), self._kind)
                    recovering = False
                due_in = await store.due_in(self._pool(), self._kind)
                taken, left = await self._take(due_in, probing)
            except Exception as error:
                self.breaker.released()
                if not is_transient(error):
                    raise
                log.warning("nothing taken up", kind=self._kind, error=type(error).__name__)
                await asyncio.sleep(IDLE_S)
                continue
            if probing and not taken:
                self.breaker.released()
            if taken and left and not probing:
                continue
            self._left_over = left
            # What is due and was not taken waits for room; whoever makes room wakes us.
            if await wait_for(self._due, min(max(min(due_in), UNHURRIED_S), IDLE_S)):
                await asyncio.sleep(GATHER_S)

    async def _take(self, due_in: tuple[float, float], probing: bool) -> tuple[int, bool]:
        """Take up what is due of (what to ask after, what to send), as far as there is room.

        Returns how many rows, and whether there may be more that are due.
        """
        lease_s = self._deadline_s * LEASE_IN_DEADLINES
        old: list[Request] = []
        new: list[Request] = []
        asks = sends = 0
        if due_in[0] <= 0:
            asks = 0 if len(self._asks) >= ASKS else 1 if probing else ASK_BATCH
            old = await store.take_due(self._pool(), self._kind, asks, lease_s, to_send=False) if asks else []
            if old:
                self._start(self._asks, self._ask(old))
                if probing:
                    return len(old), True
        if due_in[1] <= 0:
            sends = 0 if len(self._sends) >= SENDS else min(self.window.free(), 1 if probing else SEND_BATCH)
            # Whole handfuls: a call for each single place that becomes free would cost too much.
            if self._sends and sends < min(SEND_BATCH, self.window.limit) / 4:
                sends = 0
            new = await store.take_due(self._pool(), self._kind, sends, lease_s, to_send=True) if sends else []
            if new:
                self._start(self._sends, self._send(new))
        left = (due_in[0] <= 0 and len(old) == asks) or (due_in[1] <= 0 and len(new) == sends)
        return len(old) + len(new), left

    def _start(self, group: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        group.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            group.discard(task)
            if self._left_over:
                self._due.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                # The leases run out, and somebody asks again by key. The error's text may quote a person.
                log.error("a lot of requests was not settled", kind=self._kind, error=type(error).__name__)

        task.add_done_callback(ended)

    async def _ask(self, rows: Sequence[Request]) -> None:
        """Ask after what was sent before. What is unknown now is due at once, to be sent again."""
        answers = await self._call_ask(rows)
        self._finish([(row, answers[str(row.request_key)]) for row in rows])

    async def _send(self, rows: Sequence[Request]) -> None:
        """Ask after what may have arrived before, then send what is to be sent; the rest is handed on."""
        before = [row for row in rows if row.asked]
        answers = await self._call_ask(before) if before else {}
        sent: dict[str, Request] = {}
        bodies = []
        for row in rows:
            key = str(row.request_key)
            if not rules.must_send(row, answers.get(key)):
                continue
            try:
                opened = self._sealer.open(row.dossier_id, SEALED_AS[row.kind], row.sealed)
            except Tampered:
                log.error("a stored request does not open any more", request_key=key)
                answers[key] = RegistryAnswer(TECHNICAL)
                continue
            sent[key] = row
            bodies.append(rules.call_body(row, opened))
        if sent:
            self.window.sent(row.request_key for row in sent.values())
            fault_point("idlookup-before-call", len(sent))
            said = await self.registry.send(bodies)
            fault_point("idlookup-after-answer", len(sent))
            answers |= said
            self.window.lost([row.request_key for key, row in sent.items() if said[key].state in (LOST, UNREACHABLE)])
        now = time.monotonic()
        ended = []
        for row in rows:
            key = str(row.request_key)
            answer = answers.get(key, RegistryAnswer(LOST))
            if key in sent and answer.state == SENT:
                self._watch_over(replace(row, asked=True, to_send=False, lost=0), now, rules.FIRST_LOOK_S)
            else:
                ended.append((row, answer))
        self._finish(ended)

    async def _call_ask(self, rows: Sequence[Request]) -> dict[str, RegistryAnswer]:
        fault_point("idlookup-before-call", len(rows))
        answers = await self.registry.ask([str(row.request_key) for row in rows])
        fault_point("idlookup-after-answer", len(rows))
        return answers

    def _watch_over(self, request: Request, sent_at: float, pause_s: float) -> None:
        heapq.heappush(self._watched, (time.monotonic() + pause_s, next(self._order), pause_s, sent_at, request))
        self._has_watched.set()

    async def _watch(self) -> None:
        """Ask after what was just sent, at doubling intervals and all that is due in one call."""
        while True:
            if not self._watched:
                self._has_watched.clear()
                await self._has_watched.wait()
            if (pause_s := self._watched[0][0] - time.monotonic()) > 0:
                await asyncio.sleep(max(pause_s, GATHER_S))
            until = time.monotonic() + GATHER_S
            looked_at: list[tuple[float, int, float, float, Request]] = []
            while self._watched and len(looked_at) < ASK_BATCH and self._watched[0][0] <= until:
                looked_at.append(heapq.heappop(self._watched))
            rows = [request for *_, request in looked_at]
            if self.breaker.state != "closed":
                self._finish([(row, RegistryAnswer(PENDING)) for row in rows])
                continue
            try:
                answers = await self._call_ask(rows)
            except asyncio.CancelledError:
                self._watched += looked_at
                raise
            late = time.monotonic() - QUICK_S
            ended = []
            for _, _, waited_s, sent_at, request in looked_at:
                answer = answers[str(request.request_key)]
                if answer.state == PENDING and sent_at > late:
                    self._watch_over(request, sent_at, waited_s * 2)
                else:
                    ended.append((request, answer))
            self._finish(ended)

    def _finish(self, rows: Sequence[tuple[Request, RegistryAnswer]]) -> None:
        """Whatever is known of them is written down by somebody else; there may be room for more."""
        no_answer = (LOST, UNREACHABLE)
        self.window.answered(
            [request.request_key for request, answer in rows if answer.state not in (*no_answer, PENDING)]
        )
        if any(answer.state in no_answer for _, answer in rows):
            self.window.lost(())
        for request, answer in rows:
            self._hand_on(request, answer)
        if self._left_over or any(answer.state in (*no_answer, PENDING) for _, answer in rows):
            self._due.set()
