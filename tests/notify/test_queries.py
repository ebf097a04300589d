"""The ledger on a real PostgreSQL: each notice at most once on a channel, and every outcome published in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from services.notify import store
from services.notify.rules import RetryPolicy, SendResult
from services.notify.sender import MAX_FAILED_TRIES, PROBE_INTERVAL_S
from shared.contract.envelope import new_id
from shared.contract.events import NoticeRequestHeartbeat
from shared.postgres.writes import Writes
from tests.fixtures.databases import MakePool
from tests.fixtures.waiting import wait_until
from tests.notify.ledger import WITH_BOTH, WITH_NOTHING, WITH_PHONE, Notify, Scripted, notice_id_of, record_of, wanted

PACKAGES = ("shared", "services.notify")


def sent(_: Any) -> SendResult:
    return SendResult("sent")


@contextlib.asynccontextmanager
async def sending(notify: Notify) -> AsyncIterator[None]:
    task = asyncio.create_task(notify.sender.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_wanted_notice_goes_out_once_on_its_best_channel(make_pool: MakePool) -> None:
    sms, mail = Scripted(sent), Scripted(sent)
    notify = Notify(await make_pool(*PACKAGES), {"sms": sms, "email": mail})
    dossier_id = new_id()
    record = record_of(wanted(dossier_id, WITH_BOTH), dossier_id, 1)
    await notify.consumer.apply([record])
    await notify.consumer.apply([record])
    async with sending(notify):
        await wait_until(lambda: all_in(notify, "sent"))
    assert await notify.states() == [("sms", "sent")]
    assert [message.to for message in sms.messages] == ["+84912345678"]
    assert mail.messages == []
    [(sequence, kind, data)] = await notify.published_events()
    assert (sequence, kind) == (1, "NoticeSent")
    assert json.loads(data)["notice_id"] == str(notice_id_of(record))


async def test_a_person_whom_no_message_reaches_is_listed_for_a_call_in_the_same_transaction(
    make_pool: MakePool,
) -> None:
    notify = Notify(await make_pool(*PACKAGES), {"sms": Scripted(sent)})
    dossier_id = new_id()
    await notify.consumer.apply([record_of(wanted(dossier_id, WITH_NOTHING), dossier_id, 1)])
    assert await notify.states() == [("call_list", "listed")]
    [(sequence, kind, data)] = await notify.published_events()
    assert (sequence, kind, json.loads(data)["channel"]) == (1, "NoticeSent", "call_list")


async def test_a_refused_message_goes_to_the_next_channel_and_both_outcomes_are_published(make_pool: MakePool) -> None:
    sms, mail = Scripted(lambda _: SendResult("refused", "gateway-422")), Scripted(sent)
    notify = Notify(await make_pool(*PACKAGES), {"sms": sms, "email": mail})
    dossier_id = new_id()
    await notify.consumer.apply([record_of(wanted(dossier_id, WITH_BOTH), dossier_id, 1)])
    async with sending(notify):
        await wait_until(lambda: one_is(notify, "email", "sent"))
    assert sorted(await notify.states()) == [("email", "sent"), ("sms", "failed")]
    events = await notify.published_events()
    assert [(event[0], event[1]) for event in events] == [(1, "NoticeFailed"), (2, "NoticeSent")]
    assert json.loads(events[0][2])["next_channel"] == "email"


async def test_after_all_tries_a_channel_has_failed_and_the_call_list_takes_over(make_pool: MakePool) -> None:
    sms = Scripted(lambda _: SendResult("retry", "gateway-503"))
    notify = Notify(await make_pool(*PACKAGES), {"sms": sms}, RetryPolicy(max_tries=3, first_pause_s=0.01))
    dossier_id = new_id()
    await notify.consumer.apply([record_of(wanted(dossier_id, WITH_PHONE), dossier_id, 1)])
    async with sending(notify):
        await wait_until(lambda: one_is(notify, "call_list", "listed"))
    assert [message.repeated for message in sms.messages] == [False, True, True]
    assert len({message.reference for message in sms.messages}) == 1
    assert [row[1] for row in await notify.published_events()] == ["NoticeFailed", "NoticeSent"]


async def test_a_mail_whose_outcome_is_unknown_is_never_sent_again(make_pool: MakePool) -> None:
    """A sender died while it handed the message over: somebody calls instead."""
    mail = Scripted(sent, calls_hand_over=True)
    notify = Notify(await make_pool(*PACKAGES), {"email": mail})
    dossier_id = new_id()
    await notify.consumer.apply([record_of(wanted(dossier_id, WITH_BOTH), dossier_id, 1)])
    [taken] = await store.take_due(notify.pool, "email", 10, 0.0)
    assert await store.begin_handing_over(notify.pool, taken)
    async with sending(notify):
        await wait_until(lambda: one_is(notify, "call_list", "listed"))
    assert mail.messages == []
    failed = next(row for row in await notify.rows() if row["channel"] == "email")
    assert (failed["state"], failed["reason"]) == ("failed", "outcome-unknown")


async def test_a_sender_that_died_before_handing_over_loses_nothing(make_pool: MakePool) -> None:
    mail = Scripted(sent, calls_hand_over=True)
    notify = Notify(await make_pool(*PACKAGES), {"email": mail})
    dossier_id = new_id()
    await notify.consumer.apply([record_of(wanted(dossier_id, WITH_BOTH), dossier_id, 1)])
    assert await store.take_due(notify.pool, "email", 10, 0.0)
    async with sending(notify):
        await wait_until(lambda: all_in(notify, "sent"))
    assert len(mail.messages) == 1


async def test_an_older_try_neither_sends_nor_overwrites_the_outcome_of_the_latest(make_pool: MakePool) -> None:
    notify = Notify(await make_pool(*PACKAGES), {"email": Scripted(sent)})
    dossier_id = new_id()
    await notify.consumer.apply([record_of(wanted(dossier_id, WITH_BOTH), dossier_id, 1)])
    [late] = await store.take_due(notify.pool, "email", 10, 0.0)
    [latest] = await store.take_due(notify.pool, "email", 10, 60.0)
    assert not await store.begin_handing_over(notify.pool, late)
    assert await store.begin_handing_over(notify.pool, latest)
    for notice in (late, latest):
        settled = store.SettledNotice(notice, store.Settlement("sent"))
        async with notify.pool.acquire() as tx, tx.transaction():
            outgoing, saved, _ = await store.save_settled(tx, Writes(), [settled])
        assert [row.notice for row in saved] == ([latest] if notice is latest else [])
        assert len(outgoing) == len(saved)


async def test_of_the_outcomes_of_an_older_and_the_latest_try_in_one_transaction_the_latest_is_stored(
    make_pool: MakePool,
) -> None:
    """A process that was frozen beyond its lease has two outcomes of one row; the older may come last."""
    notify = Notify(await make_pool(*PACKAGES), {"email": Scripted(sent)})
    dossier_id = new_id()
    await notify.consumer.apply([record_of(wanted(dossier_id, WITH_BOTH), dossier_id, 1)])
    [late] = await store.take_due(notify.pool, "email", 10, 0.0)
    [latest] = await store.take_due(notify.pool, "email", 10, 60.0)
    assert await store.begin_handing_over(notify.pool, latest)
    both = [
        store.SettledNotice(latest, store.Settlement("sent")),
        store.SettledNotice(late, store.Settlement("due", "lease-lost", 0.0)),
    ]
    async with notify.pool.acquire() as tx, tx.transaction():
        outgoing, saved, _ = await store.save_settled(tx, Writes(), both)
    assert [row.notice for row in saved] == [latest]
    assert len(outgoing) == 1
    assert await notify.states() == [("email", "sent")]


async def test_a_leased_row_is_not_taken_again_and_no_take_exceeds_its_limit(make_pool: MakePool) -> None:
    notify = Notify(await make_pool(*PACKAGES), {"sms": Scripted(sent)})
    records = []
    for _ in range(20):
        dossier_id = new_id()
        records.append(record_of(wanted(dossier_id, WITH_PHONE), dossier_id, 1))
    await notify.consumer.apply(records)
    first = await store.take_due(notify.pool, "sms", 3, 60.0)
    assert len(first) == 3
    takes = [first, *await asyncio.gather(*(store.take_due(notify.pool, "sms", 5, 60.0) for _ in range(6)))]
    taken = [row.notice_id for rows in takes for row in rows]
    taken += [row.notice_id for row in await store.take_due(notify.pool, "sms", 100, 60.0)]
    assert len(taken) == len(set(taken)) == 20
    assert await store.take_due(notify.pool, "sms", 10, 60.0) == []


async def test_a_tampered_contact_parks_its_event_and_no_other(make_pool: MakePool) -> None:
    notify = Notify(await make_pool(*PACKAGES), {"sms": Scripted(sent)})
    mine, other = new_id(), new_id()
    moved = record_of(wanted(other, WITH_PHONE), mine, 1)
    await notify.consumer.apply([moved, record_of(wanted(other, WITH_PHONE), other, 1)])
    assert [row["dossier_id"] for row in await notify.rows()] == [other]
    parked = await notify.pool.fetch("select dossier_id, reason from parked")
    assert [tuple(row) for row in parked] == [(mine, "tampered")]


async def test_many_outcomes_of_one_dossier_are_published_without_gaps(make_pool: MakePool) -> None:
    sms = Scripted(
        lambda message: SendResult("sent") if hash(message.reference) % 3 else SendResult("refused", "gateway-422")
    )
    notify = Notify(await make_pool(*PACKAGES), {"sms": sms})
    dossiers = [new_id() for _ in range(5)]
    await notify.consumer.apply([record_of(wanted(d, WITH_PHONE), d, n) for d in dossiers for n in range(1, 41)])
    async with sending(notify):
        await wait_until(lambda: nothing_open(notify), 30)
    rows = await notify.pool.fetch(
        "select dossier_id, array_agg(sequence order by id) as sequences, count(*) as outcomes from events"
        " where dossier_id is not null group by 1"
    )
    assert len(rows) == 5
    for row in rows:
        assert row["sequences"] == list(range(1, row["outcomes"] + 1))
    assert len(sms.messages) == 200


async def test_a_heartbeat_goes_on_with_the_time_it_was_sent(make_pool: MakePool) -> None:
    notify = Notify(await make_pool(*PACKAGES), {})
    sent_at = datetime.now(UTC)
    await notify.consumer.apply([record_of(NoticeRequestHeartbeat(sent_at=sent_at), None, 0)])
    row = await notify.pool.fetchrow("select type, key, convert_from(data, 'UTF8') as data from events")
    assert row is not None
    assert (row["type"], row["key"]) == ("NoticeHeartbeat", "heartbeat")
    assert datetime.fromisoformat(json.loads(row["data"])["sent_at"]) == sent_at
    beat = notify.registry.get_sample_value("dossier_heartbeat_seen_timestamp_seconds", {"stage": "notify"})
    assert beat == pytest.approx(sent_at.timestamp())


async def test_a_settled_row_keeps_no_contact(make_pool: MakePool) -> None:
    notify = Notify(await make_pool(*PACKAGES), {"sms": Scripted(sent)})
    dossier_id = new_id()
    await notify.consumer.apply([record_of(wanted(dossier_id, WITH_PHONE), dossier_id, 1)])
    async with sending(notify):
        await wait_until(lambda: all_in(notify, "sent"))
    assert [row["sealed_contact"] for row in await notify.rows()] == [None]


async def test_a_failing_channel_is_only_probed_and_most_notices_keep_their_tries(make_pool: MakePool) -> None:
    """An hour without the gateway must not put a whole commune on the call list."""
    failing = True
    sms = Scripted(lambda _: SendResult("retry", "no-answer") if failing else SendResult("sent"), slots=4)
    notify = Notify(await make_pool(*PACKAGES), {"sms": sms}, RetryPolicy(max_tries=2, first_pause_s=0.01))
    ids = [new_id() for _ in range(80)]
    await notify.consumer.apply([record_of(wanted(d, WITH_PHONE), d, 1) for d in ids])
    async with sending(notify):
        await wait_until(lambda: len(sms.messages) >= MAX_FAILED_TRIES)
        probing_since = time.monotonic()
        await wait_until(lambda: len(sms.messages) >= MAX_FAILED_TRIES + sms.slots + 2)
        assert time.monotonic() - probing_since > PROBE_INTERVAL_S / 2
        failing = False
        await wait_until(lambda: nothing_open(notify), 30)
    states = await notify.states()
    assert states.count(("sms", "sent")) > 80 - MAX_FAILED_TRIES


async def nothing_open(notify: Notify) -> bool:
    return not await notify.pool.fetchval("select count(*) from notices where state in ('due', 'sending')")


async def all_in(notify: Notify, state: str) -> bool:
    return {row["state"] for row in await notify.rows()} == {state}


async def one_is(notify: Notify, channel: str, state: str) -> bool:
    return (channel, state) in await notify.states()
