"""What is asked all the time is read from an index: the services' own code runs, and PostgreSQL tells how it would.

The tables hold what a commune gathers in some years, so that reading all of a table is never the cheaper way.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
import pytest_asyncio

from deploy.docs.services import describe
from services.idlookup import store as idlookup_store
from services.intake import store as intake_store
from services.notify import store as notify_store
from services.workflow import dossiers_api, timers
from services.workflow.stages import figures, queries
from services.workflow.tables import TASK_STAGES
from shared.clock import wall_now
from shared.contract.events import LIFECYCLE, PARTITIONS, SUBMISSIONS
from shared.http.access import Access
from shared.inbox import positions
from shared.outbox import progress
from shared.postgres.writes import Writes
from tests.fixtures.databases import Databases
from tests.fixtures.services import TOKENS
from tests.fixtures.waiting import wait_until

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

PLANS: list[str] = []
SOMEBODY = UUID(int=5)


class Explaining(asyncpg.Connection):
    """A connection that asks for the plan of each statement before it runs it."""

    async def _execute(self, query: str, args: Any, *more: Any, **named: Any) -> Any:
        if re.match(r"\s*(select|with|update|delete|insert)\b", query, re.IGNORECASE):
            asked = f"explain (costs off) {query}"
            rows = await super()._execute(asked, args, 0, None)  # type: ignore[misc] # not in its stubs
            PLANS.append("\n".join(row[0] for row in rows))
        return await super()._execute(query, args, *more, **named)  # type: ignore[misc] # not in its stubs


EVENTS = """
insert into events (lane, topic, dossier_id, sequence, ce_id, type, trace_id, data)
select n % 12, $1::text::topic, ('00000000-0000-0000-0000-' || lpad(to_hex(n / 8), 12, '0'))::uuid, n % 8 + 1,
       gen_random_uuid(), 'StepStarted', gen_random_uuid(), convert_to('{"office_at": "2025-08-25T08:00:00Z"}', 'UTF8')
  from generate_series(0, 39999) as n
"""
SEEDS: dict[str, tuple[str, ...]] = {
    "workflow": (
        EVENTS.replace("$1", f"'{LIFECYCLE}'"),
        "update lanes l set sent_to = (select max(id) from events e where e.lane = l.lane) - 20",
        """
        insert into tasks (task_id, dossier_id, procedure_code, procedure_group, agency, stage, role, version, state,
                           outcomes, due_at, entered_at, entered_office_at, left_at)
        select gen_random_uuid(), gen_random_uuid(), '1.001193', 'birth', 'H44.' || n % 3,
               (array['appraisal', 'approval', 'return'])[n % 3 + 1],
               (array['specialist', 'signatory', 'counter'])[n % 3 + 1], 1,
               case when n % 20 = 0 then 'open' else 'closed' end, '[]', now() + n * interval '1 minute', now(), now(),
               case when n % 20 > 0 then now() end
          from generate_series(1, 40000) as n
        """,
        "insert into timers (dossier_id, kind, due_at) select gen_random_uuid(), 'number_hold',"
        " now() + n * interval '1 hour' from generate_series(1, 20000) as n",
        """
        insert into dossiers (dossier_id, dossier_code, procedure_code, procedure_version, procedure_group,
                              receiving_agency, state, national_status, lifecycle_sequence, recorded_at, trace_id, body)
        select gen_random_uuid(), 'H44.1-' || n, '1.001193', 1, 'birth', 'H44.1', 'returned', 10, 8, now(),
               gen_random_uuid(), '' from generate_series(1, 20000) as n
        """,
        f"insert into heads (topic, dossier_id, last) select '{SUBMISSIONS}', gen_random_uuid(), 1"
        " from generate_series(1, 20000)",
    ),
    "intake": (
        """
        insert into submissions (dossier_id, caller, idempotency_key, body_digest, procedure_code, procedure_version,
                                 receiving_agency, channel, submitted_at, trace_id, components)
        select gen_random_uuid(), 'counter', 'key-' || n, '', '1.001193', 1, 'H44.1', 'direct', now(),
               gen_random_uuid(), '[]' from generate_series(1, 20000) as n
        """,
        "insert into requests (caller, idempotency_key, dossier_id, kind, body_digest) select 'counter',"
        " idempotency_key, dossier_id, 'supplement', '' from submissions",
    ),
    "idlookup": (
        """
        insert into requests (request_key, dossier_id, kind, sealed, trace_id, state, wanted_at, next_try_at,
                              to_send, told_pending)
        select gen_random_uuid(), gen_random_uuid(), case when n % 2 = 0 then 'issue' else 'verify' end, 'k.x',
               gen_random_uuid(), case when n % 40 < 2 then 'waiting' else 'found' end,
               now() - n * interval '1 minute', now() - n * interval '1 minute', n % 3 > 0, n % 5 > 0
          from generate_series(1, 40000) as n
        """,
    ),
    "notify": (
        """
        insert into notices (notice_id, channel, dossier_id, kind, cause, national_status, receiving_agency,
                             sealed_contact, trace_id, wanted_at, state, try_at)
        select gen_random_uuid(), (array['sms', 'email'])[n % 2 + 1], gen_random_uuid(), 'received', 'DossierReceived',
               2, 'H44.1', 'k.x', gen_random_uuid(), now(), case when n % 40 < 2 then 'due' else 'sent' end,
               now() - n * interval '1 second'
          from generate_series(1, 40000) as n
        """,
    ),
}


class Seeded:
    """One service's database, full; and the service's code over it."""

    def __init__(self, name: str, pool: Pool) -> None:
        self.name, self.pool = name, pool
        self.app, _, self.parts = describe(name)
        self.app.state.service.use(pool)
        self.app.state.access = Access(json.dumps(TOKENS))

    async def plans_of(self, ask: Awaitable[Any]) -> str:
        """How PostgreSQL would run what is asked."""
        PLANS.clear()
        await ask
        assert PLANS
        return "\n".join(PLANS)

    async def get(self, path: str, **params: Any) -> None:
        headers = {"Authorization": f"Bearer {TOKENS['ops']}"}
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://service", headers=headers) as client:
            answer = await client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        assert answer.json()


@pytest_asyncio.fixture(scope="module")
async def seeded(databases: Databases) -> AsyncIterator[Callable[[str], Awaitable[Seeded]]]:
    made: dict[str, Seeded] = {}
    dsns: list[str] = []

    async def make(name: str) -> Seeded:
        if name not in made:
            dsns.append(await databases.create("shared", f"services.{name}"))
            pool = await asyncpg.create_pool(dsns[-1], min_size=1, max_size=2, connection_class=Explaining)
            for statement in SEEDS[name]:
                await pool.execute(statement)
            await pool.execute("analyze")
            made[name] = Seeded(name, pool)
        return made[name]

    yield make
    for one in made.values():
        one.pool.terminate()
    for dsn in dsns:
        await databases.drop(dsn)


def assert_reads(plans: str, index: str, table: str) -> None:
    """The index is used, and nothing reads or sorts the whole table."""
    assert re.search(rf"using {index}\b|Bitmap Index Scan on {index}\b", plans), plans
    assert not re.search(rf"Seq Scan on {table}\b", plans), plans


@pytest.mark.parametrize("chosen", [{}, {"agency": "H44.1"}, {"stage": "appraisal"}])
async def test_the_officers_work_list(seeded: Any, chosen: dict[str, str]) -> None:
    one: Seeded = await seeded("workflow")
    plans = await one.plans_of(one.get("/v1/tasks", role="specialist", limit=20, **chosen))
    assert_reads(plans, "tasks_of_(role|agency)", "tasks")


async def test_the_timers_that_are_due(seeded: Any) -> None:
    one: Seeded = await seeded("workflow")
    assert_reads(await one.plans_of(timers._fire_batch(one.parts)), "timers_due", "timers")


async def test_the_relays_next_events(seeded: Any) -> None:
    one: Seeded = await seeded("workflow")
    asked = progress.next_chunks(one.pool, dict.fromkeys(range(PARTITIONS), 0), 500, 10**6)
    assert_reads(await one.plans_of(asked), "events_pkey", "events")


async def test_what_the_outbox_still_holds(seeded: Any) -> None:
    one: Seeded = await seeded("workflow")
    assert_reads(await one.plans_of(progress.pending(one.pool)), "events_pkey", "events")


async def test_how_many_events_the_relay_was_given_and_has_sent(seeded: Any) -> None:
    one: Seeded = await seeded("workflow")
    asked = figures.relay_figures(one.parts, wall_now() - timedelta(hours=4))
    assert_reads(await one.plans_of(asked), "events_pkey", "events")


async def test_the_board_counts_what_is_open_without_reading_a_row_of_it(seeded: Any) -> None:
    one: Seeded = await seeded("workflow")
    now, plans = wall_now(), ""

    async def index_alone() -> bool:
        nonlocal plans
        # Only of pages that VACUUM has found visible to everybody; somebody's old snapshot may still be in its way.
        await one.pool.execute("vacuum tasks")
        asked = figures.fetch_by_stage(one.pool, queries.OPEN_TASKS, None, TASK_STAGES, queries.IS_MACHINE, now, now)
        plans = await one.plans_of(asked)
        return "Index Only Scan using tasks_standing" in plans and "Seq Scan on tasks" not in plans

    await wait_until(index_alone, 30, what=f"an index-only scan: {plans}", every_s=0.5)


async def test_the_timeline_of_a_dossier(seeded: Any) -> None:
    one: Seeded = await seeded("workflow")
    plans = await one.plans_of(dossiers_api._timeline(one.parts, SOMEBODY))
    assert_reads(plans, "events_of_dossier", "events")


async def test_the_feed_of_public_events(seeded: Any) -> None:
    one: Seeded = await seeded("workflow")
    assert_reads(await one.plans_of(one.get("/v1/events", limit=50)), "events_pkey", "events")


async def test_the_heads_that_a_batch_locks(seeded: Any) -> None:
    one: Seeded = await seeded("workflow")

    async def lock() -> None:
        async with one.pool.acquire() as tx, tx.transaction():
            await positions.lock(tx, [(SUBMISSIONS, SOMEBODY)])

    assert_reads(await one.plans_of(lock()), "heads_pkey", "heads")


async def test_a_submission_by_its_key_and_by_its_id(seeded: Any) -> None:
    one: Seeded = await seeded("intake")

    async def ask() -> None:
        async with one.pool.acquire() as tx:
            found = await intake_store.find_by_key(tx, intake_store.SubmissionKey("counter", "key-77"))
            assert found
            row = await intake_store.find_submission(tx, found.dossier_id)
            await intake_store.list_components(tx, row)

    plans = await one.plans_of(ask())
    for index, table in (
        ("submissions_caller_idempotency_key_key", "submissions"),
        ("submissions_pkey", "submissions"),
        ("requests_of_dossier", "requests"),
    ):
        assert_reads(plans, index, table)


@pytest.mark.parametrize("to_send", [True, False])
async def test_the_requests_of_the_registry_that_are_due(seeded: Any, to_send: bool) -> None:
    one: Seeded = await seeded("idlookup")
    asked = idlookup_store.take_due(one.pool, "issue", 8, 30, to_send=to_send)
    assert_reads(await one.plans_of(asked), "requests_due", "requests")
    assert_reads(await one.plans_of(idlookup_store.due_in(one.pool, "issue")), "requests_due", "requests")


async def test_the_numbers_that_are_late(seeded: Any) -> None:
    one: Seeded = await seeded("idlookup")

    async def ask() -> None:
        async with one.pool.acquire() as tx, tx.transaction():
            await idlookup_store.mark_late(tx, Writes(), wall_now() - timedelta(days=20), 10, lambda moment: moment)

    assert_reads(await one.plans_of(ask()), "requests_late", "requests")


async def test_the_notices_that_are_due(seeded: Any) -> None:
    one: Seeded = await seeded("notify")
    assert_reads(await one.plans_of(notify_store.take_due(one.pool, "sms", 8, 30)), "notices_to_send", "notices")


async def test_reading_a_whole_table_is_noticed(seeded: Any) -> None:
    one: Seeded = await seeded("workflow")
    await one.pool.execute("drop index timers_due")
    try:
        with pytest.raises(AssertionError):
            assert_reads(await one.plans_of(timers._fire_batch(one.parts)), "timers_due", "timers")
    finally:
        await one.pool.execute("create index timers_due on timers (due_at)")
