"""Sends what is due: takes rows, hands each to its channel, and stores the outcomes, many in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from services.notify import rules, store
from services.notify.channels import Channel, Message
from services.notify.metrics import NoticeMetrics
from services.notify.store import Notice, SettledNotice
from services.notify.texts import NoticeText, Texts
from shared.fault_points import fault_point
from shared.outbox.publish import Outbox
from shared.postgres.group_commit import GroupCommit
from shared.postgres.leases import wait_for
from shared.postgres.transient import is_transient
from shared.privacy.sealed import Sealer, Tampered

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)

BATCH = 500
"""The most outcomes in one transaction."""
IDLE_S = 0.5
"""An idle sender looks this often; it is woken for notices that arrive in its own process."""
LEASE_IN_DEADLINES = 3
"""A try is at most two calls, so a lease of three deadlines outlives it."""
MAX_FAILED_TRIES = 20
"""After so many failed tries in a row a channel is only probed until one succeeds."""
PROBE_INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What a sender works with. `channels` by name; `available` are the names of those that are configured."""

    pool: Callable[[], Pool]
    outbox: Outbox
    sealer: Sealer
    texts: Texts
    channels: Mapping[str, Channel]
    available: frozenset[str]
    policy: rules.RetryPolicy
    deadline_s: float
    """Wall seconds of one call to a channel."""
    metrics: NoticeMetrics


class Sender:
    """Sends on all channels, with one task per channel, so that a slow channel does not delay another."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring, self._pool, self._channels = wiring, wiring.pool, wiring.channels
        self._metrics, self._deadline_s = wiring.metrics, wiring.deadline_s
        self._due = {name: asyncio.Event() for name in self._channels}
        self._settled: GroupCommit[SettledNotice, None] = GroupCommit(
            self._commit, max_items=BATCH, rejected=_report_rejected
        )
        self._sends: dict[str, set[asyncio.Task[None]]] = {name: set() for name in self._channels}
        self._failed_tries = dict.fromkeys(self._channels, 0)
        """In a row, by channel."""

    @property
    def workers(self) -> int:
        """The most messages that may be sent at once."""
        return sum(self._channels[name].slots for name in self._wiring.available)

    def wake(self, channels: Iterable[str]) -> None:
        """Something may be due on these channels. A call too early only costs a query."""
        for name in channels:
            if name in self._due:
                self._due[name].set()

    async def run(self) -> None:
        """Send until cancelled; then finish and store the present sends, within deadlines."""
        writer = asyncio.create_task(self._settled.run())
        takers = [asyncio.create_task(self._send_on(name)) for name in self._channels]
        try:
            ended, _ = await asyncio.wait((*takers, writer), return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        except asyncio.CancelledError:
            for task in takers:
                task.cancel()
            if sends := [task for group in self._sends.values() for task in group]:
                await asyncio.wait(sends, timeout=self._deadline_s * 2)
            with contextlib.suppress(TimeoutError):
                await self._settled.finish(self._deadline_s)
            for channel in self._channels.values():
                await channel.close()
            raise
        finally:
            for task in (*takers, writer):
                task.cancel()
            await asyncio.gather(*takers, writer, return_exceptions=True)

    async def _send_on(self, name: str) -> None:
        """Take and send the due rows of one channel, until cancelled."""
        channel, sends, due = self._channels[name], self._sends[name], self._due[name]
        while True:
            probing = self._failed_tries[name] >= MAX_FAILED_TRIES
            free = 1 - len(sends) if probing else channel.slots - len(sends)
            # Wait until a good part of the slots is free: each taking is a transaction.
            if free <= 0 or (sends and free < channel.slots // 4):
                await asyncio.wait(sends, return_when=asyncio.FIRST_COMPLETED)
                continue
            due.clear()
            taken = await self._take(name, free)
            for notice in taken:
                task = asyncio.create_task(self._send(channel, notice))
                sends.add(task)
                task.add_done_callback(sends.discard)
            if probing:
                await asyncio.sleep(PROBE_INTERVAL_S)
            elif len(taken) < free:
                await wait_for(due, IDLE_S)

    async def _take(self, name: str, limit: int) -> list[Notice]:
        try:
            taken = await store.take_due(self._pool(), name, limit, LEASE_IN_DEADLINES * self._deadline_s)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("due notices cannot be taken", channel=name, error=type(error).__name__)
            return []
        now = time.time()
        self._metrics.add_waits(
            [now - row.wanted_at.timestamp() for row in taken if row.tries == 1 and not row.instead_of]
        )
        return taken

    async def _send(self, channel: Channel, notice: Notice) -> None:
        """Try once to send a notice, and store what follows."""
        started = time.perf_counter()
        try:
            contact = rules.read_contact(self._wiring.sealer.open(notice.dossier_id, "contact", notice.sealed_contact))
        except Tampered:
            contact, result = rules.NOBODY, rules.SendResult("refused", "tampered")
        else:
            result = await self._try(channel, notice, contact)
        self._metrics.add_work(time.perf_counter() - started)
        failed_tries = self._failed_tries[notice.channel] + 1 if result.outcome == "retry" else 0
        self._failed_tries[notice.channel] = failed_tries
        attempt = rules.Attempt(notice.channel, notice.tries, contact)
        settlement = rules.settle(result, attempt, self._wiring.available, self._wiring.policy, random.random())
        if settlement.state == "failed":
            log.warning(
                "a notice failed on its channel",
                notice_id=str(notice.notice_id),
                channel=notice.channel,
                reason=result.reason,
                next_channel=settlement.next_channel,
            )
        self._settled.add(SettledNotice(notice, settlement))

    async def _try(self, channel: Channel, notice: Notice, contact: rules.Contact) -> rules.SendResult:
        if notice.handing_over_at is not None:
            # A sender died while it handed the message over: it may have gone out, so it is not sent again.
            return rules.SendResult("unknown", "outcome-unknown")
        handed_over = False

        async def hand_over() -> bool:
            nonlocal handed_over
            handed_over = await store.begin_handing_over(self._pool(), notice)
            return handed_over

        to = contact.email if notice.channel == rules.EMAIL else contact.mobile
        if not to:
            return rules.SendResult("refused", "no-address")
        try:
            message = self._message(notice, to)
            fault_point("notify-before-send", 1)
            result = await channel.send(message, hand_over)
            fault_point("notify-after-send", 1)
        except Exception as error:  # noqa: BLE001 - it becomes the row's reason
            if not is_transient(error):
                # The error's text may quote an address.
                log.error("sending failed unexpectedly", channel=notice.channel, error=type(error).__name__)
            return rules.SendResult("unknown" if handed_over else "retry", f"error-{type(error).__name__}")
        return result

    def _message(self, notice: Notice, to: str) -> Message:
        text = NoticeText(notice.kind, notice.cause, notice.dossier_code, notice.national_status, notice.result_due_at)
        texts = self._wiring.texts
        subject, body = texts.mail(text) if notice.channel == rules.EMAIL else ("", texts.short(text))
        return Message(notice.reference, to, subject, body, repeated=notice.tries > 1)

    async def _commit(self, rows: Sequence[SettledNotice]) -> Sequence[None]:
        async with self._wiring.outbox.transaction() as transaction:
            saved = await store.save_settled(transaction.tx, transaction.writes, rows)
            transaction.append(saved.outgoing)
        self._metrics.add_entered(len(saved.successors))
        for row in saved.rows:
            if row.settlement.state != "due":
                self._metrics.add_settled(row.settlement.state, row.notice.taken_at)
        channels = [successor.channel for successor in saved.successors]
        self._metrics.add_listed(channels.count(rules.CALL_LIST))
        self.wake(channels)
        return [None] * len(rows)


def _report_rejected(row: SettledNotice, error: Exception) -> None:
    log.error(
        "an outcome cannot be stored; the notice is taken again when its lease ends",
        notice_id=str(row.notice.notice_id),
        error=type(error).__name__,
    )
