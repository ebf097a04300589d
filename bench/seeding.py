"""Fills the databases as after a long time of operation: a few dossiers are really processed, then copied many times.

Officers complete nine in ten of the pattern's dossiers over HTTP. Each copy has every row of its original in every
service, with its own ids, codes and keys and with earlier times; COPY writes the list of copies to PostgreSQL. So each
service's proof views stay correct: each appended event counts as sent once, and each consumed event as applied once.
Sealed fields stay sealed with the original's id, so the personal fields of a copy cannot be opened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import asyncpg

from bench import throughput
from bench.testbed import SERVICES, Stalled, Testbed, connect
from deploy.local import call
from shared.contract.partitions import lane_of

PATTERN = 200
"""Number of dossiers that are really processed."""
OPEN_ONE_IN = 10
COPIES_PER_TRANSACTION = 50
"""Copies of the whole pattern per transaction."""
APART = "interval '2 hours'"
"""Each copy of the pattern is this much earlier than the one before: a million dossiers go back over a year."""
OFFICERS = ("counter", "specialist", "signatory", "records_clerk", "centre_director")
FUTURE_TIMES = frozenset({"due_at", "next_try_at", "try_at", "result_due_at"})
"""Columns with times at which something will happen. They are not changed: an earlier time would be due at once."""
TASKS_PER_CALL = 50
EVENTS_PER_BATCH = 500

FUNCTIONS = """
create or replace function twin_middle(n integer) returns text language sql immutable strict
  return substr(lpad(to_hex(n), 10, '0'), 1, 3) || '-a' || substr(lpad(to_hex(n), 10, '0'), 4, 3)
         || '-' || substr(lpad(to_hex(n), 10, '0'), 7, 4);
create or replace function twin(id uuid, n integer) returns uuid language sql immutable strict
  return (left(id::text, 15) || twin_middle(n) || right(id::text, 8))::uuid;
create or replace function pattern_of(content text) returns text language sql immutable strict
  return regexp_replace(regexp_replace(content,
    '([0-9a-f]{8}-[0-9a-f]{4}-7)[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{4}([0-9a-f]{8})', '\\1' || chr(1) || '\\2', 'g'),
    '(H44[.]B[0-9]{2}-[0-9]{6}-[0-9]{4})', '\\1' || chr(2), 'g');
create or replace function twin_text(pattern text, n integer) returns text language sql immutable strict
  return replace(replace(pattern, chr(1), twin_middle(n)), chr(2), lpad(n::text, 6, '0'));
create table if not exists twins (original uuid not null, n integer not null, lane smallint not null);
create index if not exists twins_by_copy on twins (n);
"""
"""An id keeps its time and its last four bytes, which `heads` stores of each applied event. In a text the parts
that differ between copies are found once, in the pattern."""
JSON_TEXTS, TEXTS = ("data", "body"), ("dossier_code",)


def twin(original: UUID, copy: int) -> UUID:
    """Return the id of a dossier's copy, like the SQL function twin."""
    digits, number = original.hex, f"{copy:010x}"
    return UUID(f"{digits[:13]}{number[:3]}a{number[3:]}{digits[24:]}")


class Seeding:
    """A testbed whose databases hold `total` dossiers so far. The services must run when it is created."""

    def __init__(self, testbed: Testbed) -> None:
        self._place = testbed
        self.originals: Sequence[UUID] = ()
        self.copies = 0

    @property
    def total(self) -> int:
        return len(self.originals) * (1 + self.copies)

    async def work_pattern(self, timeout_s: float = 120.0) -> None:
        """Submit the pattern and complete its tasks. Raises Stalled when the stack does not become idle."""
        testbed = self._place
        await throughput.run(testbed, PATTERN)
        deadline = time.monotonic() + timeout_s
        while await asyncio.to_thread(self._work_once) or not await self._is_idle():
            if time.monotonic() > deadline:
                raise Stalled("the stack does not become idle after the pattern's dossiers")
            await asyncio.sleep(0.2)
        async with connect(testbed.dsn["workflow"]) as connection:
            rows = await connection.fetch("select dossier_id from dossiers order by dossier_id")
        self.originals = [row["dossier_id"] for row in rows]

    async def grow(self, total: int) -> float:
        """Add copies until there are `total` dossiers, with the services stopped. Returns the seconds it took."""
        started = time.monotonic()
        for name in SERVICES:
            self._place.stack.take_down(name)
        first, self.copies = self.copies + 1, total // len(self.originals) - 1
        mapping = [
            (original, copy, lane_of(str(twin(original, copy))))
            for copy in range(first, self.copies + 1)
            for original in self.originals
        ]
        await asyncio.gather(*(self._copy(self._place.dsn[name], mapping, first) for name in SERVICES))
        for name in SERVICES:
            self._place.stack.bring_back(name)
        await asyncio.to_thread(self._place.stack.wait_ready, 120)
        return time.monotonic() - started

    def _work_once(self) -> int:
        """Complete the open tasks of every role, except those of the dossiers that stay open. Returns their number."""
        testbed, done = self._place, 0
        for role in OFFICERS:
            page = call.call(
                testbed.url["workflow"], "/v1/tasks", query={"role": role, "limit": 1000}, token=testbed.tokens[role]
            )
            items = [
                {
                    "task_id": task["task_id"],
                    "version": task["version"],
                    "outcome": next(outcome["code"] for outcome in task["outcomes"] if outcome["forward"]),
                }
                for task in page["items"]
                if not task["waiting_for"] and UUID(task["dossier_id"]).int % OPEN_ONE_IN
            ]
            url, token = testbed.url["workflow"], testbed.tokens[role]
            for first in range(0, len(items), TASKS_PER_CALL):
                body = {"items": items[first : first + TASKS_PER_CALL]}
                answer = call.call(url, "/v1/tasks/complete", method="POST", body=body, token=token, timeout=60.0)
                done += sum(row["status"] == 200 for row in answer["items"])
        return done

    async def _is_idle(self) -> bool:
        """Return whether no event is in flight between the services."""
        for name in SERVICES:
            async with connect(self._place.dsn[name]) as connection:
                if await connection.fetchval(
                    "select exists (select 1 from events e join lanes l using (lane) where e.id > l.sent_to)"
                ):
                    return False
        async with connect(self._place.dsn["workflow"]) as connection:
            return not await connection.fetchval("select exists (select 1 from notices_awaited)")

    async def _copy(self, dsn: str, mapping: Sequence[tuple[UUID, int, int]], first: int) -> None:
        async with connect(dsn) as connection:
            await connection.execute("set synchronous_commit = off")
            await connection.execute(FUNCTIONS)
            await connection.copy_records_to_table("twins", records=mapping, columns=("original", "n", "lane"))
            await connection.execute("analyze twins")
            tables = [
                row["name"]
                for row in await connection.fetch(
                    "select c.relname::text as name from pg_class c join pg_attribute a on a.attrelid = c.oid"
                    " where c.relkind = 'r' and a.attname = 'dossier_id' and c.relnamespace = 'public'::regnamespace"
                    " order by c.relname = 'submissions' desc, c.relname"
                )
            ]
            before = await connection.fetchval("select coalesce(max(id), 0) from events")
            statements = [await _multiply(connection, table, self.originals) for table in tables]
            for start in range(first, self.copies + 1, COPIES_PER_TRANSACTION):
                async with connection.transaction():
                    for statement in statements:
                        await connection.execute(statement, start, min(start + COPIES_PER_TRANSACTION - 1, self.copies))
            await connection.execute(
                "insert into sent (lane, to_id, from_id, events, recorded_from, recorded_to, sent_at)"
                " select lane, max(id), min(id), count(*), min(recorded_at), max(recorded_at), max(recorded_at)"
                " from (select lane, id, recorded_at, (row_number() over (partition by lane order by id) - 1)"
                " / $2 as part from events where id > $1) e"
                " group by lane, part",
                before,
                EVENTS_PER_BATCH,
            )
            await connection.execute(
                "update lanes l set sent_to = greatest(l.sent_to, (select coalesce(max(id), 0) from events e"
                " where e.lane = l.lane))"
            )
            # As autovacuum does over a year.
            await connection.execute("vacuum (analyze)")


async def _multiply(connection: asyncpg.Connection[asyncpg.Record], table: str, originals: Sequence[UUID]) -> str:
    """Return the statement that adds the copies $1 to $2 of a table's rows."""
    await connection.execute(f"create temp table pattern_{table} as select * from {table} where false")
    await connection.execute(
        f"insert into pattern_{table} select * from {table} where dossier_id = any($1)", list(originals)
    )
    columns = await connection.fetch(
        "select attname::text as name, format_type(atttypid, null) as type from pg_attribute"
        " where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attidentity = '' order by attnum",
        table,
    )
    for name in (column["name"] for column in columns if column["name"] in (*JSON_TEXTS, *TEXTS)):
        marked = f"pattern_of({name})"
        if name in JSON_TEXTS:
            marked = f"convert_to(pattern_of(convert_from({name}, 'UTF8')), 'UTF8')"
        await connection.execute(f"update pattern_{table} set {name} = {marked}")
    values = [_value(column["name"], column["type"]) for column in columns]
    # Within a dossier the event ids must ascend with the sequence.
    order = "order by w.n, t.id" if table == "events" else "order by w.n"
    return (
        f"insert into {table} ({', '.join(column['name'] for column in columns)}) select {', '.join(values)}"
        f" from pattern_{table} t join twins w on w.original = t.dossier_id where w.n between $1 and $2 {order}"
    )


def _value(name: str, kind: str) -> str:
    if name == "lane":
        return "w.lane"
    if kind == "uuid":
        return f"twin(t.{name}, w.n)"
    if name in JSON_TEXTS:
        return f"convert_to(twin_text(convert_from(t.{name}, 'UTF8'), w.n), 'UTF8')"
    if name in TEXTS:
        return f"twin_text(t.{name}, w.n)"
    if name == "idempotency_key":
        return f"t.{name} || '-' || w.n"
    if kind == "timestamp with time zone" and name not in FUTURE_TIMES:
        return f"t.{name} - w.n * {APART}"
    return f"t.{name}"
