"""The pool that sends: takes what is due, hands it to its channel, writes down what became of it, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from services.notify import rules, store
from services.notify.channels import Channel, Letter
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
"""Outcomes in one transaction at most."""
IDLE_S = 0.5
"""An idle sender looks this often; what arrives in this process it is told of at once."""
LEASE_IN_DEADLINES = 3
"""A try is at most two calls, so a lease of three deadlines outlives it."""
ALARM = 20
"""So many tries without an answer in a row, and the channel is only probed until it answers again."""
PROBE_EVERY_S = 1.0


class Sender:
    """Sends on all channels; one task a channel, so that a slow one holds up no other."""

    def __init__(
        self,
        *,
        pool: Callable[[], Pool],
        sealer: Sealer,
        texts: Texts,
        channels: Mapping[str, Channel],
        available: frozenset[str],
        patience: rules.Patience,
        deadline_s: float,
        metrics: NoticeMetrics,
        outbox: Outbox,
    ) -> None:
        self._pool, self._sealer, self._texts, self._channels = pool, sealer, texts, channels
        self._available, self._patience, self._deadline_s = available, patience, deadline_s
        self._metrics, self._outbox = metrics, outbox
        self._due = {name: asyncio.Event() for name in channels}
        self._settled: GroupCommit[SettledNotice, None] = GroupCommit(
            self._commit, max_items=BATCH, rejected=_report_rejected
        )
        self._under_way: dict[str, set[asyncio.Task[None]]] = {name: set() for name in channels}
        self._silent = dict.fromkeys(channels, 0)

    @property
    def workers(self) -> int:
        return sum(self._channels[name].slots for name in self._available)

    def wake(self, channels: Iterable[str]) -> None:
        """Something may be due on these channels. Cheap; calling it too early only costs a query."""
        for name in channels:
            if name in self._due:
                self._due[name].set()

    async def run(self) -> None:
        """Send until cancelled; then what is under way is finished and stored first, within a deadline."""
        writer = asyncio.create_task(self._settled.run())
        takers = [asyncio.create_task(self._send_on(name)) for name in self._channels]
        try:
            ended, _ = await asyncio.wait((*takers, writer), return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        except asyncio.CancelledError:
            for task in takers:
                task.cancel()
            if under_way := [task for group in self._under_way.values() for task in group]:
                await asyncio.wait(under_way, timeout=self._deadline_s * 2)
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
        channel, under_way, due = self._channels[name], self._under_way[name], self._due[name]
        while True:
            probing = self._silent[name] >= ALARM
            free = 1 - len(under_way) if probing else channel.slots - len(under_way)
            # Whole handfuls: taking rows one by one costs a transaction for each.
            if free <= 0 or (under_way and free < channel.slots // 4):
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                continue
            due.clear()
            taken = await self._take(name, free)
            for notice in taken:
                task = asyncio.create_task(self._send(channel, notice))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            if probing:
                await asyncio.sleep(PROBE_EVERY_S)
            elif len(taken) < free:
                await wait_for(due, IDLE_S)

    async def _take(self, name: str, limit: int) -> list[Notice]:
        try:
            taken = await store.take_due(self._pool(), name, limit, LEASE_IN_DEADLINES * self._deadline_s)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("nothing taken", channel=name, error=type(error).__name__)
            return []
        now = time.time()
        self._metrics.take_up(
            [now - row.wanted_at.timestamp() for row in taken if row.tries == 1 and not row.instead_of]
        )
        return taken

    async def _send(self, channel: Channel, notice: Notice) -> None:
        started = time.perf_counter()
        try:
            contact = rules.read_contact(self._sealer.open(notice.dossier_id, "contact", notice.sealed_contact))
        except Tampered:
            contact, answer = rules.NOBODY, rules.SendResult("refused", "tampered")
        else:
            answer = await self._hand(channel, notice, contact)
        self._metrics.work(time.perf_counter() - started)
        self._silent[notice.channel] = self._silent[notice.channel] + 1 if answer.what == "again" else 0
        settlement = rules.settle(
            answer,
            channel=notice.channel,
            tries=notice.tries,
            contact=contact,
            available=self._available,
            patience=self._patience,
            chance=random.random(),
        )
        if settlement.state == "failed":
            log.warning("channel failed", notice_id=str(notice.notice_id), channel=notice.channel, reason=answer.reason)
        self._settled.add(SettledNotice(notice, settlement))

    async def _hand(self, channel: Channel, notice: Notice, contact: rules.Contact) -> rules.SendResult:
        if notice.handing_over_at is not None:
            # A sender died while the mail server had the message: it may have gone out, so it is not sent again.
            return rules.SendResult("unknown", "outcome-unknown")
        handed = False

        async def hand_over() -> bool:
            nonlocal handed
            handed = await store.begin_handing_over(self._pool(), notice)
            return handed

        to = contact.email if notice.channel == rules.EMAIL else contact.mobile
        if not to:
            return rules.SendResult("refused", "no-address")
        about = NoticeText(notice.kind, notice.cause, notice.dossier_code, notice.national_status, notice.result_due_at)
        try:
            subject, text = self._texts.mail(about) if notice.channel == rules.EMAIL else ("", self._texts.short(about))
            fault_point("notify-before-send", 1)
            answer = await channel.send(
                Letter(notice.reference, to, subject, text, repeated=notice.tries > 1), hand_over
            )
            fault_point("notify-after-send", 1)
        except Exception as error:  # noqa: BLE001 - it becomes the row's reason; a lost task would strand the row
            if not is_transient(error):
                # Its text may quote an address.
                log.error("a channel raised", channel=notice.channel, error=type(error).__name__)
            return rules.SendResult("unknown" if handed else "again", f"error-{type(error).__name__}")
        return answer

    async def _commit(self, rows: Sequence[SettledNotice]) -> Sequence[None]:
        async with self._outbox.transaction() as transaction:
            outgoing, saved, successors = await store.save_settled(transaction.tx, transaction.writes, rows)
            transaction.append(outgoing)
        self._metrics.enter(len(successors))
        for row in saved:
            if row.settlement.state != "due":
                self._metrics.leave(row.settlement.state, row.notice.taken_at)
        for successor in successors:
            if successor.channel == rules.CALL_LIST:
                self._metrics.leave("listed")
        self.wake({successor.channel for successor in successors})
        return [None] * len(rows)


def _report_rejected(row: SettledNotice, error: Exception) -> None:
    log.error(
        "an outcome cannot be stored; its lease runs out",
        notice_id=str(row.notice.notice_id),
        error=type(error).__name__,
    )
