"""The senders and their writer while PostgreSQL refuses writes: they go on afterwards, and nothing is sent twice."""

from __future__ import annotations

import asyncio

import pytest

from services.notify import rules
from shared.contract.envelope import new_id
from tests.fixtures.databases import MakePool
from tests.fixtures.troubles import KINDS, trouble
from tests.fixtures.waiting import wait_until
from tests.notify.ledger import WITH_PHONE, Notify, Scripted, record_of, wanted


@pytest.mark.parametrize("table", ["notices", "events"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_senders_go_on_when_the_trouble_is_over(kind: str, table: str, make_pool: MakePool) -> None:
    """`notices`: no row can be taken; `events`: the message has gone out, but that cannot be stored."""
    dsn, pool = await make_pool.with_dsn("shared", "services.notify")
    channel = Scripted(lambda _: rules.SendResult("sent"))
    notify = Notify(pool, {"sms": channel}, deadline_s=20)
    dossiers = [new_id() for _ in range(10)]
    await notify.consumer.apply([record_of(wanted(dossier_id, WITH_PHONE), dossier_id, 1) for dossier_id in dossiers])

    async def all_sent() -> bool:
        return await notify.states() == [("sms", "sent")] * 10

    async with trouble(dsn, kind, table) as met:
        sending = asyncio.create_task(notify.sender.run())
        await met.until_met(2)
        assert await notify.published_events() == []
    try:
        await wait_until(all_sent, 30)
        assert not sending.done()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert len(channel.messages) == 10
    assert len(await notify.published_events()) == 10
