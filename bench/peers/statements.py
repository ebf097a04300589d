"""Converts the steps' SQL statements, written for asyncpg, for the peers that use psycopg or SQLAlchemy."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

NUMBERED = re.compile(r"\$(\d+)::([a-z0-9_]+(?:\[\])?)")


@cache
def for_psycopg(statement: str) -> str:
    return NUMBERED.sub(r"%(p\1)s::\2", statement.replace("%", "%%"))


@cache
def for_sqlalchemy(statement: str) -> str:
    return NUMBERED.sub(r"cast(:p\1 as \2)", statement)


def named(values: tuple[Any, ...]) -> dict[str, Any]:
    return {f"p{n}": value for n, value in enumerate(values, 1)}
