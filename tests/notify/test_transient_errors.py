"""The senders and their writer while PostgreSQL refuses to write: they go on afterwards, and nobody is told twice."""

from __future__ import annotations

import asyncio

import pytest

from services.notify import rules
from shared.contract.envelope import new_id
from tests.fixtures.databases import MakePool
from tests.fixtures.troubles import KINDS, trouble
from tests.fixtures.waiting import wait_until
from tests.notify.wanted import WITH_PHONE, Notify, Scripted, record_of, wanted


@pytest.mark.parametrize("table", ["notices", "events"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_senders_go_on_when_the_trouble_is_over(kind: str, table: str, make_pool: MakePool) -> None:
    """`notices`: nothing can be taken up; `events`: it has gone out, and that cannot be stored."""
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
        assert await notify.told() == []
    try:
        await wait_until(all_sent, 30)
        assert not sending.done()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert len(channel.letters) == 10
    assert len(await notify.told()) == 10
