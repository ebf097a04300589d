"""JSON in and out of HTTP: strict UTF-8, no NUL, lone surrogate, doubled key or infinite number; bounded."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.http.problems import Problem, malformed, read_strictly, too_large, wrong_encoding, wrong_type

Form = TypeVar("Form", bound=BaseModel)
LIMIT = 256 * 1024
"""Bytes of a request body."""
MAX_DEPTH = 100


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON; datetimes as RFC 3339, UUIDs as text."""
    return orjson.dumps(value, default=str)


def digest(value: Any) -> bytes:
    """SHA-256 of the canonical form (sorted keys): two bodies are the same when these are."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()


def refuse_compressed(request: Request) -> None:
    """Raises Problem 415 for a compressed body: its size and its hash would be another body's."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise wrong_encoding()


async def read_model(request: Request, kind: type[Form], **sentences: str) -> Form:
    """The request's JSON body as `kind`. Raises Problem 400, 413, 415, and 422 `invalid` with a row for each defect.

    `sentences` may be `vi` and `en`: what the problem says of the whole.
    """
    return read_strictly(kind, await read_object(request), **sentences)


async def read_object(request: Request) -> dict[str, Any]:
    """The request's body as a JSON object. Raises Problem 400, 413 or 415."""
    refuse_compressed(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise wrong_type()
    if int_or_zero(request.headers.get("content-length")) > LIMIT:
        raise too_large()
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LIMIT:
            raise too_large()
    return parse_object(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Strict parse of one JSON object. Raises Problem 400."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise malformed(
            "not-json", "Nội dung không phải JSON hợp lệ (UTF-8).", "The body is not valid JSON in UTF-8."
        ) from None
    if not isinstance(value, dict):
        raise malformed("not-an-object", "Nội dung phải là một đối tượng JSON.", "The body must be a JSON object.")
    # orjson keeps the last of two and says nothing: the caller and we would mean different things by one body.
    if b"\\" in body or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _look_for_doubled_keys(body)
        _look_inside(value)
    elif body.count(b":") != orjson.dumps(value).count(b":"):
        # Without a backslash no string holds a NUL, and each is written as it was read: a colon less is a key less.
        raise _doubled()
    return value


def _look_for_doubled_keys(body: bytes) -> None:
    try:
        json.loads(body, object_pairs_hook=_single)
    except _Doubled:
        raise _doubled() from None
    except RecursionError:
        raise _too_deep() from None


class _Doubled(ValueError):
    pass


def _single(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Doubled


def _look_inside(value: Any) -> None:
    """Without recursion: what is to be refused may be deeper than the interpreter goes."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise _too_deep()
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                # It can stand in valid JSON only as an escape; PostgreSQL's text cannot hold it.
                if "\x00" in item:
                    raise malformed("nul", "Nội dung có ký tự NUL.", "The body contains a NUL character.")
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
        level, depth = below, depth + 1


class NoNul:
    """PostgreSQL's text cannot hold a NUL: in an address it is malformed (400), not a failure of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ("\x00" in scope["path"] or b"%00" in scope["query_string"]):
            said = malformed("nul", "Địa chỉ có ký tự NUL.", "The address contains a NUL character.").response()
            await said(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _doubled() -> Problem:
    return malformed(
        "doubled-key",
        "Một trường được nêu hai lần trong cùng một đối tượng JSON.",
        "A field is named twice within one JSON object.",
    )


def _too_deep() -> Problem:
    return malformed("too-deep", "Nội dung JSON lồng nhau quá sâu.", "The JSON is nested too deeply.")


def int_or_zero(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0
