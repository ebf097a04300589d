"""JSON bodies: strict, bounded, and every body is either read or refused with a problem."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from shared.http.body import LIMIT, digest, dumps, int_or_zero, parse_object, read_model, read_object
from shared.http.problems import Problem

REFUSED = [
    (b"", 400, "not-json"),
    (b"{", 400, "not-json"),
    (b"[]", 400, "not-an-object"),
    (b'"x"', 400, "not-an-object"),
    (b'{"a": NaN}', 400, "not-json"),
    (b'{"a": Infinity}', 400, "not-json"),
    (b'{"a": "\xff"}', 400, "not-json"),
    (b'{"a": "\\ud800"}', 400, "not-json"),
    (b'{"a": "\\u0000"}', 400, "nul"),
    (b'{"\\u0000": 1}', 400, "nul"),
    (b'{"a": ["\\u0000"]}', 400, "nul"),
    (b'{"a": "\x00"}', 400, "not-json"),
    (b'{"a":' * 5000, 400, "not-json"),
    (b'{"a":' * 200 + b"1" + b"}" * 200, 400, "too-deep"),
    (b'{"a":' + b"[" * 1000 + b'"\\u0000"' + b"]" * 1000 + b"}", 400, "too-deep"),
    (b'{"a": 1, "b": 2, "a": 1}', 400, "doubled-key"),
    (b'{"a": {"b": 2, "b": 3}}', 400, "doubled-key"),
    (b'{"a": 1, "\\u0061": 2}', 400, "doubled-key"),
    (b'{"a": 1e999}', 400, "not-json"),
]


@pytest.mark.parametrize(("body", "status", "code"), REFUSED, ids=[repr(row[0][:14]) for row in REFUSED])
def test_what_is_not_a_clean_object_is_refused(body: bytes, status: int, code: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_object(body)
    assert (refused.value.status, refused.value.code) == (status, code)


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert parse_object(b'{"a": "\\\\u0000"}') == {"a": "\\u0000"}


@given(st.binary(max_size=200))
def test_whatever_comes_is_an_object_or_a_problem(body: bytes) -> None:
    with contextlib.suppress(Problem):
        assert isinstance(parse_object(body), dict)


class Pairs(list[Any]):
    """An object's names and values before anybody has read it."""


trees = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    lambda below: (
        st.lists(below, max_size=3)
        | st.lists(st.tuples(st.sampled_from(["a", "b", ":", '"', "\\", ""]), below), max_size=3).map(Pairs)
    ),
)


def written(tree: Any, to_ascii: bool) -> str:
    if isinstance(tree, Pairs):
        inside = (f"{json.dumps(name)}: {written(value, to_ascii)}" for name, value in tree)
        return "{" + ", ".join(inside) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(written(value, to_ascii) for value in tree) + "]"
    return json.dumps(tree, ensure_ascii=to_ascii)


def doubled(tree: Any) -> bool:
    if isinstance(tree, Pairs):
        return len({name for name, _ in tree}) < len(tree) or any(doubled(value) for _, value in tree)
    return isinstance(tree, list) and any(map(doubled, tree))


@given(trees, st.booleans())
def test_a_doubled_key_is_found_wherever_it_stands_and_however_the_text_is_written(tree: Any, to_ascii: bool) -> None:
    text = f'{{"x": {written(tree, to_ascii)}}}'.encode()
    try:
        code = ""
        parse_object(text)
    except Problem as refused:
        code = refused.code
    if "\\u0000" not in text.decode():
        assert code == ("doubled-key" if doubled(tree) else "")


def request(
    body: bytes,
    kind: str = "application/json",
    length: str | None = None,
    chunk: int = 10_000,
    encoding: str | None = None,
) -> Request:
    parts = [body[at : at + chunk] for at in range(0, len(body), chunk)] or [b""]

    async def receive() -> Any:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    named = {b"content-type": kind, b"content-length": length, b"content-encoding": encoding}
    headers = [(name, value.encode()) for name, value in named.items() if value is not None]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
)
async def test_json_is_read_whatever_its_spelling(kind: str) -> None:
    assert await read_object(request(b'{"a": 1}', kind)) == {"a": 1}


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_anything_else_is_415(kind: str) -> None:
    with pytest.raises(Problem) as refused:
        await read_object(request(b"{}", kind))
    assert refused.value.status == 415


@pytest.mark.parametrize("length", [None, str(LIMIT + 1), "99999999999999999999", "-5", "many"])
async def test_a_body_over_the_limit_is_413_whatever_its_length_header_says(length: str | None) -> None:
    with pytest.raises(Problem) as refused:
        await read_object(request(b'{"a": "' + b"x" * LIMIT + b'"}', length=length))
    assert refused.value.status == 413


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    body = b'{"a": "' + b"x" * (LIMIT - 9) + b'"}'
    assert len(body) == LIMIT
    assert len((await read_object(request(body)))["a"]) == LIMIT - 9


def test_two_bodies_are_the_same_when_only_their_order_and_spacing_differ() -> None:
    one, other = parse_object(b'{"a": 1, "b": {"c": 2, "d": 3}}'), parse_object(b'{"b":{"d":3,"c":2},"a":1}')
    assert digest(one) == digest(other)
    assert digest(one) != digest(parse_object(b'{"a": 1, "b": {"c": 2, "d": 4}}'))
    assert digest({"a": 1}) != digest({"a": "1"})


def test_what_is_written_is_utf_8_without_escapes() -> None:
    assert dumps({"tên": "Hoa"}) == '{"tên":"Hoa"}'.encode()


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate, gzip", "identity, gzip"])
async def test_a_compressed_body_is_415(encoding: str) -> None:
    with pytest.raises(Problem) as refused:
        await read_object(request(b"{}", encoding=encoding))
    assert (refused.value.status, refused.value.code) == (415, "wrong-content-encoding")


@pytest.mark.parametrize("encoding", [None, "", "identity", " Identity "])
async def test_a_body_that_is_not_compressed_is_read(encoding: str | None) -> None:
    assert await read_object(request(b"{}", encoding=encoding)) == {}


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")
    copies: int
    certified: bool = False


async def test_a_model_is_read_strictly_and_every_defect_has_a_row_in_both_languages() -> None:
    assert (await read_model(request(b'{"copies": 2, "certified": true}'), Form)).copies == 2
    with pytest.raises(Problem) as refused:
        await read_model(request(b'{"copies": "2", "certified": 1, "SECRET": 3}'), Form, vi="Sai.", en="Wrong.")
    problem = refused.value
    assert (problem.status, problem.code, problem.vi, problem.en) == (422, "invalid", "Sai.", "Wrong.")
    rows = {row["field"]: row for row in problem.errors or ()}
    assert rows.keys() == {"copies", "certified", "SECRET"}
    assert all(row["code"] and row["vi"] != row["en"] for row in rows.values())


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("42", 42), (None, 0), ("", 0), ("-1", 0), ("1.5", 0), ("x", 0), ("\u0664", 0), ("9" * 19, 0)],
)
def test_a_number_in_a_header_is_read_only_when_it_is_plain(text: str | None, number: int) -> None:
    assert int_or_zero(text) == number
