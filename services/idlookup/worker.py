"""The workers: take due requests, oldest first, and call the registry. No transaction is open during a call."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

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
"""The most calls of one kind at once."""
LEASE_IN_DEADLINES = 3
"""A request is taken, asked about, sent and watched within this many call deadlines."""
WATCH_S = 1.0
"""A request that is not answered so soon after it was sent goes back to the database until it is due again."""
GATHER_S = 0.01
"""How long to wait for more requests to share a call."""
PROBE_WAIT_S = 0.02
MIN_IDLE_S = 0.1
MAX_IDLE_S = 1.0
"""An idle worker looks this often; it is woken for requests that arrive in its own process."""
NO_ANSWER = (LOST, UNREACHABLE)


class _Watched(NamedTuple):
    """A request that was sent a moment ago and may be answered soon. Ordered by `ask_at`; times are monotonic."""

    ask_at: float
    order: int
    pause_s: float
    sent_at: float
    request: Request


class _Taken(NamedTuple):
    """How many rows were taken, and whether more may be due."""

    rows: int
    more_due: bool


class RegistryWorker:
    """Calls the registry for requests of one kind (`issue` or `verify`), with their own limit and circuit breaker."""

    def __init__(
        self,
        *,
        registry: Registry,
        window: Window,
        pool: Callable[[], Pool],
        sealer: Sealer,
        on_answer: Callable[[Request, RegistryAnswer], None],
    ) -> None:
        """`on_answer` is called once for each request taken, with what is known after the last call about it."""
        self.registry, self.window, self.breaker = registry, window, registry.breaker
        self._kind, self._deadline_s = registry.kind, registry.deadline_s
        self._pool, self._sealer, self._on_answer = pool, sealer, on_answer
        self._due = asyncio.Event()
        self._sends: set[asyncio.Task[None]] = set()
        self._asks: set[asyncio.Task[None]] = set()
        self._watched: list[_Watched] = []
        """A heap."""
        self._order = count()
        self._more_due = True
        """Requests may be due that were not taken for want of room: then freed room wakes the worker."""
        self._has_watched = asyncio.Event()

    def wake(self) -> None:
        """Requests may be due. A call too early only costs a query."""
        self._due.set()

    async def run(self) -> None:
        """Run until cancelled; then give the present calls one more deadline, and the watched requests back."""
        watcher = asyncio.create_task(self._watch())
        taker = asyncio.create_task(self._take_repeatedly())
        try:
            ended, _ = await asyncio.wait((watcher, taker), return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            taker.cancel()
            if calls := self._sends | self._asks:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(calls, timeout=self._deadline_s)
            watcher.cancel()
            for task in calls:
                task.cancel()
            await asyncio.gather(watcher, taker, *calls, return_exceptions=True)
            for watched in self._watched:
                self._on_answer(watched.request, RegistryAnswer(PENDING))
            self._watched.clear()

    async def _take_repeatedly(self) -> None:
        """Take due requests and start calls, until cancelled. While the breaker is half-open, one request at a time."""
        recovering = False
        while True:
            if (rest_s := self.breaker.rest_s()) > 0:
                recovering = True
                await asyncio.sleep(min(rest_s, MAX_IDLE_S))
                continue
            if not self.breaker.allow():
                await wait_for(self._due, PROBE_WAIT_S)
                self._due.clear()
                continue
            probing = self.breaker.state != "closed"
            self._due.clear()
            self._more_due = True  # until a query has shown otherwise
            try:
                if recovering and not probing:
                    await store.end_pauses(self._pool(), self._kind)
                    recovering = False
                due_in = await store.due_in(self._pool(), self._kind)
                taken = await self._take(due_in, probing)
            except Exception as error:
                self.breaker.release()
                if not is_transient(error):
                    raise
                log.warning("due requests cannot be taken", kind=self._kind, error=type(error).__name__)
                await asyncio.sleep(MAX_IDLE_S)
                continue
            if probing and not taken.rows:
                self.breaker.release()
            if taken.rows and taken.more_due and not probing:
                continue
            self._more_due = taken.more_due
            if await wait_for(self._due, min(max(min(due_in), MIN_IDLE_S), MAX_IDLE_S)):
                await asyncio.sleep(GATHER_S)

    async def _take(self, due_in: store.DueIn, probing: bool) -> _Taken:
        """Take due requests, as far as there is room for calls, and start the calls about them."""
        lease_s = self._deadline_s * LEASE_IN_DEADLINES
        to_ask: list[Request] = []
        to_send: list[Request] = []
        max_asks = max_sends = 0
        if due_in.ask_s <= 0:
            max_asks = 0 if len(self._asks) >= ASKS else 1 if probing else ASK_BATCH
            if max_asks:
                to_ask = await store.take_due(self._pool(), self._kind, max_asks, lease_s, to_send=False)
            if to_ask:
                self._start(self._asks, self._ask(to_ask))
                if probing:
                    return _Taken(len(to_ask), more_due=True)
        if due_in.send_s <= 0:
            max_sends = 0 if len(self._sends) >= SENDS else min(self.window.free(), 1 if probing else SEND_BATCH)
            # Wait until a good part of the window is free: a call for each single freed place costs too much.
            if self._sends and max_sends < min(SEND_BATCH, self.window.limit) / 4:
                max_sends = 0
            if max_sends:
                to_send = await store.take_due(self._pool(), self._kind, max_sends, lease_s, to_send=True)
            if to_send:
                self._start(self._sends, self._send(to_send))
        more_to_ask = due_in.ask_s <= 0 and len(to_ask) == max_asks
        more_to_send = due_in.send_s <= 0 and len(to_send) == max_sends
        return _Taken(len(to_ask) + len(to_send), more_to_ask or more_to_send)

    def _start(self, calls: set[asyncio.Task[None]], call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(call)
        calls.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            calls.discard(task)
            if self._more_due:
                self._due.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                # When their leases end, these requests are asked about by key. The error's text may quote a person.
                log.error("calling the registry failed unexpectedly", kind=self._kind, error=type(error).__name__)

        task.add_done_callback(ended)

    async def _ask(self, requests: Sequence[Request]) -> None:
        """Ask about requests that were sent earlier. Those unknown to the registry become due to be sent."""
        answers = await self._call_ask(requests)
        self._finish([(request, answers[str(request.request_key)]) for request in requests])

    async def _send(self, requests: Sequence[Request]) -> None:
        """Ask about requests that may have arrived earlier, then send those that must be sent."""
        asked = [request for request in requests if request.asked]
        answers = await self._call_ask(asked) if asked else {}
        sent: dict[str, Request] = {}
        bodies = []
        for request in requests:
            key = str(request.request_key)
            if not rules.must_send(request, answers.get(key)):
                continue
            try:
                opened = self._sealer.open(request.dossier_id, SEALED_AS[request.kind], request.sealed)
            except Tampered:
                log.error("a stored request cannot be decrypted", request_key=key)
                answers[key] = RegistryAnswer(TECHNICAL)
                continue
            sent[key] = request
            bodies.append(rules.call_body(request, opened))
        if sent:
            answers |= await self._call_send(sent, bodies)
        sent_at = time.monotonic()
        finished = []
        for request in requests:
            key = str(request.request_key)
            answer = answers.get(key, RegistryAnswer(LOST))
            if key in sent and answer.state == SENT:
                self._watch_for(replace(request, asked=True, to_send=False, lost=0), sent_at, rules.MIN_POLL_S)
            else:
                finished.append((request, answer))
        self._finish(finished)

    async def _call_send(
        self, sent: Mapping[str, Request], bodies: Sequence[dict[str, Any]]
    ) -> dict[str, RegistryAnswer]:
        self.window.sent(request.request_key for request in sent.values())
        fault_point("idlookup-before-call", len(sent))
        answers = await self.registry.send(bodies)
        fault_point("idlookup-after-answer", len(sent))
        self.window.lost([request.request_key for key, request in sent.items() if answers[key].state in NO_ANSWER])
        return answers

    async def _call_ask(self, requests: Sequence[Request]) -> dict[str, RegistryAnswer]:
        fault_point("idlookup-before-call", len(requests))
        answers = await self.registry.ask([str(request.request_key) for request in requests])
        fault_point("idlookup-after-answer", len(requests))
        return answers

    def _watch_for(self, request: Request, sent_at: float, pause_s: float) -> None:
        ask_at = time.monotonic() + pause_s
        heapq.heappush(self._watched, _Watched(ask_at, next(self._order), pause_s, sent_at, request))
        self._has_watched.set()

    async def _watch(self) -> None:
        """Ask about requests that were just sent, at doubling intervals; requests due together share a call."""
        while True:
            if not self._watched:
                self._has_watched.clear()
                await self._has_watched.wait()
            if (pause_s := self._watched[0].ask_at - time.monotonic()) > 0:
                await asyncio.sleep(max(pause_s, GATHER_S))
            until = time.monotonic() + GATHER_S
            due: list[_Watched] = []
            while self._watched and len(due) < ASK_BATCH and self._watched[0].ask_at <= until:
                due.append(heapq.heappop(self._watched))
            if self.breaker.state != "closed":
                self._finish([(watched.request, RegistryAnswer(PENDING)) for watched in due])
                continue
            try:
                answers = await self._call_ask([watched.request for watched in due])
            except asyncio.CancelledError:
                self._watched += due
                raise
            sent_before = time.monotonic() - WATCH_S
            finished = []
            for watched in due:
                answer = answers[str(watched.request.request_key)]
                if answer.state == PENDING and watched.sent_at > sent_before:
                    self._watch_for(watched.request, watched.sent_at, watched.pause_s * 2)
                else:
                    finished.append((watched.request, answer))
            self._finish(finished)

    def _finish(self, answered: Sequence[tuple[Request, RegistryAnswer]]) -> None:
        """Update the window, pass each answer on to be stored, and wake the worker where there may be work or room."""
        states = {answer.state for _, answer in answered}
        self.window.answered(
            [request.request_key for request, answer in answered if answer.state not in (*NO_ANSWER, PENDING)]
        )
        if not states.isdisjoint(NO_ANSWER):
            self.window.lost(())
        for request, answer in answered:
            self._on_answer(request, answer)
        if self._more_due or not states.isdisjoint((*NO_ANSWER, PENDING)):
            self._due.set()
