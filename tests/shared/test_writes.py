"""Several writes in one round trip: all of them happen or none, each with its own values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from shared.contract.events import SUBMISSIONS
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from tests.fixtures.databases import MakePool

ADD = "insert into things (name, number) select * from unnest($1::text[], $2::int[])"
CHANGE = "update things set number = number + $2 where name = $1"


async def test_each_part_has_its_own_values_however_many_there_are(make_pool: MakePool) -> None:
    pool = await make_pool("shared")
    await pool.execute("create table things (name text primary key, number int)")
    await pool.execute("insert into things values ('a', 1), ('b', 2)")
    writes = Writes()
    writes.add(CHANGE, "a", 10)
    for at in range(6):
        writes.add(ADD, [f"new {at}"], [at])
    writes.add(CHANGE, "b", 100)
    await writes.run(pool)
    rows = {row["name"]: row["number"] for row in await pool.fetch("select * from things")}
    assert rows == {"a": 11, "b": 102} | {f"new {at}": at for at in range(6)}


async def test_a_part_may_have_more_than_nine_values(make_pool: MakePool) -> None:
    pool = await make_pool("shared")
    await pool.execute("create table things (name text, number int)")
    many = ", ".join(f"(${n}, ${n + 1})" for n in range(1, 13, 2))
    writes = Writes()
    writes.add(ADD, ["before"], [0])
    writes.add(
        f"insert into things select name, number::int from (values {many}) as v (name, number)",
        *(value for n in range(1, 7) for value in (f"new {n}", str(n))),
    )
    await writes.run(pool)
    rows = {row["name"]: row["number"] for row in await pool.fetch("select * from things")}
    assert rows == {"before": 0} | {f"new {n}": n for n in range(1, 7)}


async def test_when_one_part_fails_nothing_is_written(make_pool: MakePool) -> None:
    pool = await make_pool("shared")
    await pool.execute("create table things (name text primary key, number int)")
    await pool.execute("insert into things values ('a', 1)")
    writes = Writes()
    writes.add(CHANGE, "a", 10)
    writes.add(ADD, ["b", "a"], [2, 3])
    with pytest.raises(asyncpg.UniqueViolationError):
        await writes.run(pool)
    assert [tuple(row) for row in await pool.fetch("select * from things")] == [("a", 1)]


async def test_a_statement_that_was_run_is_not_run_again(make_pool: MakePool) -> None:
    pool = await make_pool("shared")
    await pool.execute("create table things (name text, number int)")
    writes = Writes()
    writes.add(ADD, ["a"], [1])
    await writes.run(pool)
    await writes.run(pool)
    assert await pool.fetchval("select count(*) from things") == 1


@pytest.mark.parametrize("many", [1, 3])
async def test_few_rows_are_written_by_a_statement_and_many_by_copy(
    many: int, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.postgres.writes.MIN_COPY_ROWS", many)
    pool = await make_pool("shared")
    await pool.execute("create table things (name text primary key, of_topic topic, number int default 7)")
    columns, rows = {"name": "text", "of_topic": "topic"}, [("a", SUBMISSIONS), ("b", None)]
    copied: list[str] = []
    async with pool.acquire() as tx, tx.transaction():
        copy = tx.copy_records_to_table

        async def counted(table: str, **more: object) -> str:
            copied.append(table)
            return await copy(table, **more)

        monkeypatch.setattr(type(tx), "copy_records_to_table", lambda _, table, **more: counted(table, **more))
        writes = Writes()
        writes.insert("things", columns, rows)
        writes.insert("things", columns, [])
        await writes.run(tx)
    assert copied == (["things"] if many == 1 else [])
    stored = await pool.fetch("select name, of_topic::text as of_topic, number from things order by name")
    assert [tuple(row) for row in stored] == [("a", SUBMISSIONS, 7), ("b", None, 7)]


async def test_when_a_copy_fails_nothing_is_written(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.postgres.writes.MIN_COPY_ROWS", 1)
    pool = await make_pool("shared")
    await pool.execute("create table things (name text primary key, number int)")
    await pool.execute("insert into things values ('a', 1)")
    writes = Writes()
    writes.add(CHANGE, "a", 10)
    writes.insert("things", {"name": "text", "number": "int"}, [("b", 2), ("a", 3)])
    with pytest.raises(asyncpg.UniqueViolationError):
        async with pool.acquire() as tx, tx.transaction():
            await writes.run(tx)
    assert [tuple(row) for row in await pool.fetch("select * from things")] == [("a", 1)]
