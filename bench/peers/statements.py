"""The steps' statements are written for asyncpg; peers with psycopg or SQLAlchemy run the same ones through these."""

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
