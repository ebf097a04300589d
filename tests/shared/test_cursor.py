"""Cursors: what is encoded comes back, and anything else is a 400, whatever a client sends."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.cursor import Count, Cursor, Text, Timestamp, page
from shared.http.problems import Problem

ROWS: Cursor[tuple[datetime, UUID]] = Cursor(tuple[Timestamp, UUID])
NAMES: Cursor[tuple[str, int]] = Cursor(tuple[Text, Count])
AT = datetime(2025, 8, 25, 9, 0, tzinfo=UTC)


def written(parts: Any) -> str:
    """A cursor's text with any parts, as a client could make it."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@given(
    st.integers(0, 7_258_118_399).map(lambda s: datetime.fromtimestamp(s, UTC) + timedelta(microseconds=s % 1_000_000)),
    st.uuids(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=100),
    st.integers(0, 2**63 - 1),
)
def test_what_is_encoded_comes_back_and_needs_no_escaping(at: datetime, id: UUID, name: str, count: int) -> None:
    for text in (ROWS.encode((at, id)), NAMES.encode((name, count))):
        assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    assert ROWS.decode(ROWS.encode((at, id))) == (at, id)
    assert NAMES.decode(NAMES.encode((name, count))) == (name, count)


def test_a_time_with_another_offset_is_the_same_time() -> None:
    there = AT.astimezone(timezone(timedelta(hours=7)))
    assert ROWS.decode(ROWS.encode((there, UUID(int=1)))) == (AT, UUID(int=1))


WRONG_ROWS = [
    [],
    ["2025-08-25T09:00:00Z"],
    ["2025-08-25T09:00:00Z", str(UUID(int=1)), 3],
    ["2025-08-25T09:00:00", str(UUID(int=1))],
    ["0001-01-01T00:00:00+00:00", str(UUID(int=1))],
    ["1969-12-31T23:59:59Z", str(UUID(int=1))],
    ["9999-12-31T23:59:59Z", str(UUID(int=1))],
    ["9999-12-31T23:59:59-12:00", str(UUID(int=1))],
    ["2200-01-01T00:00:00Z", str(UUID(int=1))],
    [1756112400, str(UUID(int=1))],
    ["2025-08-25T09:00:00Z", "x"],
    {"at": 1},
    "text",
    None,
]


@pytest.mark.parametrize("parts", WRONG_ROWS, ids=str)
def test_parts_that_no_row_can_have_are_refused(parts: Any) -> None:
    assert ROWS.decode(written(["2025-08-25T09:00:00Z", str(UUID(int=1))])) == (AT, UUID(int=1))
    assert refusal(ROWS, written(parts)) == (400, "bad-cursor")


@pytest.mark.parametrize(
    "parts",
    [["x", -1], ["x", 2**63], ["x", "1"], ["x", 1.5], ["x", True], ["x" * 101, 1], ["a\x00b", 1], [1, 1]],
    ids=str,
)
def test_numbers_out_of_range_and_texts_that_cannot_be_stored_are_refused(parts: Any) -> None:
    assert NAMES.decode(written(["x", 1])) == ("x", 1)
    assert refusal(NAMES, written(parts)) == (400, "bad-cursor")


@pytest.mark.parametrize("text", ["", "junk", "%%%", "AAAA=", "ễ", "a b", "x" * 601, NAMES.encode(("x", 1)) + "!"])
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    assert refusal(NAMES, text) == (400, "bad-cursor")


def test_a_long_text_is_refused_before_it_is_read() -> None:
    assert refusal(NAMES, NAMES.encode(("x", 1)) + "A" * 10_000_000) == (400, "bad-cursor")


@given(st.text(max_size=80))
def test_whatever_comes_is_parts_or_a_problem(text: str) -> None:
    with contextlib.suppress(Problem):
        assert len(ROWS.decode(text)) == 2


def test_a_full_page_says_where_the_next_begins_and_any_other_is_the_last() -> None:
    rows = [uuid4(), uuid4()]
    assert page(rows, 2, "cursor") == {"items": rows, "next": "cursor"}
    assert page(rows, 3, "cursor") == {"items": rows, "next": None}
    assert page([], 2, None) == {"items": [], "next": None}


def refusal(cursor: Cursor[Any], text: str) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        cursor.decode(text)
    return caught.value.status, caught.value.code
