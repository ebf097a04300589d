"""The workers against the registry simulator and a real database: one number each, whatever fails."""

from __future__ import annotations

import asyncio
from uuid import UUID

from services.idlookup import store
from services.idlookup.rules import NextState, result_of
from services.idlookup.window import STALE_S
from shared.contract.envelope import new_id
from shared.postgres.writes import Writes
from tests.fixtures.databases import MakePool
from tests.fixtures.outside import Outside
from tests.fixtures.waiting import wait_until
from tests.idlookup.lookup import (
    PACKAGES,
    PERSON,
    STRANGER,
    Lookup,
    births,
    check_wanted,
    checks,
    dossier_of,
    key_of,
    no_longer_wanted,
    number_wanted,
    published_events,
    record_of,
    sealer,
    states,
    until_answered,
)

SLOW = {"latency_p50_s": 60.0, "latency_p95_s": 60.0}
QUICK = {"latency_p50_s": 0.005, "latency_p95_s": 0.01}


async def number_of(lookup: Lookup, dossier_id: UUID) -> str:
    numbers = [data for _, kind, data in await published_events(lookup.pool, dossier_id) if kind == "IdNumberFound"]
    assert len(numbers) == 1
    return str(sealer.open(dossier_id, "number", numbers[0]["sealed_number"]))


async def test_a_wanted_number_is_found_and_published_once_and_sealed(make_pool: MakePool, registry: Outside) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    wanted = births(1)[0]
    async with lookup.calling():
        await lookup.consume([wanted])
        assert await until_answered(lookup.pool, 1) == {"found": 1}
    number = await number_of(lookup, dossier_of(wanted))
    # Province 025 by default, 3 for a woman born in the 2000s, 26 for 2026.
    assert number.startswith("025326")
    assert [(sequence, kind) for sequence, kind, _ in await published_events(lookup.pool)] == [(1, "IdNumberFound")]
    assert (await published_events(lookup.pool))[0][2]["request_key"] == str(key_of(wanted))
    assert (await published_events(lookup.pool))[0][2]["warnings"] == []
    row = await lookup.pool.fetchval("select to_jsonb(r)::text from requests r")
    assert number not in row


async def test_checks_are_answered_match_mismatch_or_rejected(make_pool: MakePool, registry: Outside) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    dossiers = [new_id() for _ in range(3)]
    people = [PERSON, STRANGER, {"full_name": "Trần Thị Mẫu"}]
    async with lookup.calling():
        await lookup.consume(
            [record_of(check_wanted(d, person), d, 1) for d, person in zip(dossiers, people, strict=True)]
        )
        await until_answered(lookup.pool, 3)
    answers = {
        UUID(str(d)): [data["answer"] for _, _, data in await published_events(lookup.pool, d)] for d in dossiers
    }
    assert [answers[d] for d in dossiers] == [["match"], ["mismatch"], ["rejected"]]


async def test_a_subject_that_cannot_have_a_number_is_refused(make_pool: MakePool, registry: Outside) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    dossier_id = new_id()
    wrong = {"child": {"full_name": "Nguyễn Minh Mẫu", "birth_date": "2026-02-31"}}
    async with lookup.calling():
        await lookup.consume([record_of(number_wanted(dossier_id, wrong), dossier_id, 1)])
        assert await until_answered(lookup.pool, 1) == {"refused": 1}
    (sequence, kind, data) = (await published_events(lookup.pool))[0]
    assert (sequence, kind, data["reason"]) == (1, "IdNumberRefused", "birth-date-invalid")


async def test_while_every_answer_is_lost_nothing_is_issued_twice(make_pool: MakePool, registry: Outside) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url, call_deadline_s=0.2)
    wanted = births(20)
    await registry.control(lost_answer_rate=1.0)
    async with lookup.calling():
        await lookup.consume(wanted)

        async def all_are_issued() -> bool:
            return (await registry.stats())["numbers_issued"] == 20

        await wait_until(all_are_issued, 20)
        assert "found" not in await states(lookup.pool)
        await registry.control(lost_answer_rate=0.0)
        assert await until_answered(lookup.pool, 20) == {"found": 20}
    stats = await registry.stats()
    assert (stats["numbers_issued"], stats["numbers_issued_twice"], stats["requests"]) == (20, 0, 20)


async def test_with_lost_answers_and_errors_each_still_gets_one_number(make_pool: MakePool, registry: Outside) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url, call_deadline_s=0.2)
    await registry.control(lost_answer_rate=0.2, error_rate=0.2)
    async with lookup.calling():
        for part in range(10):
            await lookup.consume(births(5 + part))
        assert await until_answered(lookup.pool, 95, 60) == {"found": 95}
    stats = await registry.stats()
    assert (stats["numbers_issued"], stats["numbers_issued_twice"]) == (95, 0)


async def test_a_request_that_the_registry_forgot_is_sent_again_with_the_same_key(
    make_pool: MakePool, registry: Outside
) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    await registry.control(**SLOW)
    wanted = births(5)
    async with lookup.calling():
        await lookup.consume(wanted)

        async def all_are_pending() -> bool:
            return await states(lookup.pool) == {"pending": 5}

        await wait_until(all_are_pending)
        await registry.control(forget_keys=True, **QUICK)
        assert await until_answered(lookup.pool, 5) == {"found": 5}
    stats = await registry.stats()
    assert (stats["requests"], stats["numbers_issued"], stats["numbers_issued_twice"]) == (10, 5, 0)


async def test_while_the_registry_is_down_requests_are_stored_and_later_answered(
    make_pool: MakePool, registry: Outside
) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    await registry.control(down=True)
    async with lookup.calling():
        await lookup.consume(births(50))

        def breaker_is_open() -> bool:
            return bool(lookup.app.workers["issue"].breaker.state == "open")

        await wait_until(breaker_is_open)
        await lookup.consume(births(50))
        assert lookup.app.workers["issue"].window.in_flight <= 50
        await registry.control(down=False)
        assert await until_answered(lookup.pool, 100) == {"found": 100}
    assert (await registry.stats())["numbers_issued_twice"] == 0


async def test_while_the_registry_hangs_calls_are_few_and_a_late_number_is_reported_once(
    make_pool: MakePool, registry: Outside
) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url, call_deadline_s=0.2, pending_after_s=1.0)
    await registry.control(hang=True)
    async with lookup.calling():
        wanted = births(3)
        await lookup.consume([*wanted, *checks(3)])

        async def all_are_reported_late() -> bool:
            return len(await published_events(lookup.pool)) >= 3

        await wait_until(all_are_reported_late)
        tries = await lookup.pool.fetchval("select max(tries) from requests")
        assert tries < 12
        await registry.control(hang=False)
        assert await until_answered(lookup.pool, 6) == {"found": 3, "matched": 3}
    for record in wanted:
        rows = await published_events(lookup.pool, dossier_of(record))
        assert [(sequence, kind) for sequence, kind, _ in rows] == [(1, "IdNumberStillPending"), (2, "IdNumberFound")]


async def test_a_request_dropped_before_any_call_is_never_sent(make_pool: MakePool, registry: Outside) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    wanted = births(1)[0]
    await lookup.consume([wanted, record_of(no_longer_wanted(key_of(wanted)), dossier_of(wanted), 2), *births(1)])
    async with lookup.calling():
        assert await until_answered(lookup.pool, 2) == {"stopped": 1, "found": 1}
    assert (await registry.stats())["requests"] == 1


async def test_a_number_already_asked_for_is_fetched_even_when_it_is_no_longer_wanted(
    make_pool: MakePool, registry: Outside
) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    await registry.control(**SLOW)
    wanted = births(1)[0]
    async with lookup.calling():
        await lookup.consume([wanted])

        async def is_pending() -> bool:
            return await states(lookup.pool) == {"pending": 1}

        await wait_until(is_pending)
        await lookup.consume([record_of(no_longer_wanted(key_of(wanted)), dossier_of(wanted), 2)])
        await registry.control(**QUICK)
        assert await until_answered(lookup.pool, 1) == {"found": 1}
    assert len(await number_of(lookup, dossier_of(wanted))) == 12


async def test_a_suspected_duplicate_of_a_request_dropped_during_the_call_needs_no_decision(
    make_pool: MakePool, registry: Outside
) -> None:
    pool = await make_pool(*PACKAGES)
    lookup, wanted = Lookup(pool, registry.url), births(2)
    await lookup.consume(wanted)
    taken = await store.take_due(pool, "issue", 10, 60.0, to_send=True)
    await lookup.consume([record_of(no_longer_wanted(key_of(wanted[0])), dossier_of(wanted[0]), 2)])
    assert await states(pool) == {"calling": 2}
    suspected = NextState("duplicate")
    rows = [
        store.SettledRequest(request, suspected, None, result_of(request, suspected, None, ())) for request in taken
    ]
    async with pool.acquire() as tx, tx.transaction():
        outgoing, saved = await store.save_settled(tx, Writes(), rows)
    assert await states(pool) == {"stopped": 1, "duplicate": 1}
    assert [event.dossier_id for event in outgoing] == [dossier_of(wanted[1])]
    assert {row.request.request_key: (row.next_state.state, row.next_state.reason) for row in saved} == {
        key_of(wanted[0]): ("stopped", "no-longer-wanted"),
        key_of(wanted[1]): ("duplicate", None),
    }
    assert await pool.fetchval("select count(*) from requests where settled_at is not null") == 2


async def test_a_request_dropped_and_then_forgotten_is_not_sent_again(make_pool: MakePool, registry: Outside) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url, forget_after_s=1.0)
    await registry.control(**SLOW)
    wanted = births(1)[0]
    async with lookup.calling():
        await lookup.consume([wanted])

        async def is_pending() -> bool:
            return await states(lookup.pool) == {"pending": 1}

        await wait_until(is_pending)
        await lookup.consume([record_of(no_longer_wanted(key_of(wanted)), dossier_of(wanted), 2)])
        await registry.control(forget_keys=True, **QUICK)
        assert await until_answered(lookup.pool, 1) == {"stopped": 1}
    assert (await registry.stats())["requests"] == 1
    assert await published_events(lookup.pool) == []


async def test_an_answer_to_an_older_try_changes_nothing(make_pool: MakePool, registry: Outside) -> None:
    pool = await make_pool(*PACKAGES)
    await Lookup(pool, registry.url).consume(births(1))
    (slow,) = await store.take_due(pool, "issue", 10, 0.0, to_send=True)
    assert not slow.asked
    (quick,) = await store.take_due(pool, "issue", 10, 60.0, to_send=True)
    assert quick.asked, "the second worker must ask by key before it sends"
    assert await store.take_due(pool, "issue", 10, 60.0, to_send=True) == []
    found = NextState("found", number="025326000123")
    async with pool.acquire() as tx, tx.transaction():
        for request, written in ((slow, 0), (quick, 1), (quick, 0)):
            fact = result_of(request, found, "sealed", ())
            outgoing, saved = await store.save_settled(
                tx, Writes(), [store.SettledRequest(request, found, "sealed", fact)]
            )
            assert (len(outgoing), len(saved)) == (written, written)


async def test_the_answers_to_an_older_and_the_latest_try_in_one_transaction_are_published_once(
    make_pool: MakePool, registry: Outside
) -> None:
    """A process that was frozen beyond its lease gets the answers to its old and its new call together."""
    pool = await make_pool(*PACKAGES)
    await Lookup(pool, registry.url).consume(births(1))
    (slow,) = await store.take_due(pool, "issue", 10, 0.0, to_send=True)
    (quick,) = await store.take_due(pool, "issue", 10, 60.0, to_send=True)
    found = NextState("found", number="025326000123")
    both = [
        store.SettledRequest(request, found, "sealed", result_of(request, found, "sealed", ()))
        for request in (slow, quick)
    ]
    async with pool.acquire() as tx, tx.transaction():
        outgoing, saved = await store.save_settled(tx, Writes(), both)
    assert [row.request.tries for row in saved] == [quick.tries]
    assert len(outgoing) == 1


async def test_the_oldest_requests_are_taken_first(make_pool: MakePool, registry: Outside) -> None:
    pool = await make_pool(*PACKAGES)
    ages = [5.0, 50.0, 20.0, 80.0, 1.0]
    records = []
    for age_s in ages:
        dossier_id = new_id()
        records.append(record_of(number_wanted(dossier_id), dossier_id, 1, age_s=age_s))
    await Lookup(pool, registry.url).consume(records)
    taken = await store.take_due(pool, "issue", 3, 60.0, to_send=True)
    assert [row.request_key for row in taken] == [key_of(records[number]) for number in (3, 1, 2)]


async def test_requests_paused_while_the_registry_was_down_come_first_again_when_it_is_back(
    make_pool: MakePool, registry: Outside
) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    wanted = births(40)
    paused = [key_of(wanted[0]), key_of(wanted[1])]
    async with lookup.calling():
        await registry.control(down=True)
        await lookup.consume(wanted[:5])
        await wait_until(lambda: lookup.breaker_is("open"), 10)
        await lookup.consume(wanted[5:])
        # Like two requests that were probes in a long outage: one lately, and one whose pause is already over.
        await lookup.pool.execute(
            "update requests set state = 'pending', lost = 9, wanted_at = now() - interval '1 hour',"
            " next_try_at = now() + (case when request_key = $1 then 3600 else 0 end) * interval '1 second'"
            " where request_key in ($1, $2)",
            *paused,
        )
        await registry.control(down=False, capacity_per_s=40)
        await until_answered(lookup.pool, 40)
    settled = await lookup.pool.fetch("select request_key from requests order by settled_at")
    assert set(paused) <= {row["request_key"] for row in settled[:20]}


async def test_ending_the_pauses_does_not_wait_for_a_locked_request(make_pool: MakePool, registry: Outside) -> None:
    pool = await make_pool(*PACKAGES)
    wanted = births(5)
    await Lookup(pool, registry.url).consume(wanted)
    await pool.execute("update requests set lost = 3, next_try_at = now() + interval '1 hour'")
    async with pool.acquire() as tx, tx.transaction():
        await tx.execute("select 1 from requests where request_key = $1 for update", key_of(wanted[2]))
        async with asyncio.timeout(5):
            await store.end_pauses(pool, "issue")
    paused = await pool.fetch("select request_key from requests where next_try_at > now()")
    assert [row["request_key"] for row in paused] == [key_of(wanted[2])]


async def test_a_flood_of_checks_does_not_delay_a_birth(make_pool: MakePool, registry: Outside) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    await registry.control(capacity_per_s=100, latency_p50_s=0.01, latency_p95_s=0.02)
    async with lookup.calling():
        await lookup.consume(checks(3000))

        async def some_are_answered() -> bool:
            return (await states(lookup.pool)).get("matched", 0) > 30

        await wait_until(some_are_answered, 20)
        birth = births(1)[0]
        await lookup.consume([birth])

        async def has_its_number() -> bool:
            return bool(await published_events(lookup.pool, dossier_of(birth)))

        # The registry needs half a minute for all checks; the birth must have its number long before.
        await wait_until(has_its_number, 20)
        assert (await states(lookup.pool))["waiting"] > 1000


async def test_checks_without_answers_do_not_use_up_the_limit_for_births(
    make_pool: MakePool, registry: Outside
) -> None:
    """As many checks are in flight as may be, and none is answered."""
    lookup = Lookup(await make_pool(*PACKAGES), registry.url)
    await registry.control(**SLOW)
    async with lookup.calling():
        await lookup.consume(checks(300))
        window = lookup.app.workers["verify"].window
        await wait_until(lambda: window.in_flight and not window.free())
        birth = births(1)[0]
        await lookup.consume([birth])
        sent = "select not to_send from requests where request_key = $1"
        # Before the window stops counting stale requests.
        await wait_until(lambda: lookup.pool.fetchval(sent, key_of(birth)), STALE_S / 2)


async def test_a_quick_registry_gives_thousands_of_numbers_each_once(make_pool: MakePool, registry: Outside) -> None:
    lookup = Lookup(await make_pool(*PACKAGES), registry.url, call_deadline_s=3.0)
    await lookup.consume(births(3000))
    async with lookup.calling():
        assert await until_answered(lookup.pool, 3000, 60) == {"found": 3000}
    assert (await registry.stats())["numbers_issued_twice"] == 0
