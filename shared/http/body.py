"""JSON bodies, read strictly: bounded size and depth, valid UTF-8, no NUL, no doubled key, no infinite number."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.http.problems import Problem, malformed, read_strictly, too_large, wrong_encoding, wrong_type

Model = TypeVar("Model", bound=BaseModel)
LIMIT = 256 * 1024
"""Bytes of a request body."""
MAX_DEPTH = 100
"""Objects and lists inside each other."""


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON; datetimes as RFC 3339, UUIDs as text."""
    return orjson.dumps(value, default=str)


def digest(value: Any) -> bytes:
    """SHA-256 of the canonical form (sorted keys). Two bodies are the same when their digests are."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()


def refuse_compressed(request: Request) -> None:
    """Raises Problem 415 for a compressed body: limits and hashes are about the content itself."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise wrong_encoding()


async def read_model(request: Request, model: type[Model], **sentences: str) -> Model:
    """The request's JSON body as `model`. Raises Problem 400, 413, 415, and 422 `invalid` with a row for each defect.

    `sentences` may be `vi` and `en`, the problem's sentences about the whole body.
    """
    return read_strictly(model, await read_object(request), **sentences)


async def read_object(request: Request) -> dict[str, Any]:
    """The request's body as a JSON object. Raises Problem 400, 413 or 415."""
    refuse_compressed(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
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
    # orjson silently keeps the last of two equal keys; another reader of the same body might keep the first.
    if b"\\" in body or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _look_for_doubled_keys(body)
        _look_inside(value)
    elif body.count(b":") != orjson.dumps(value).count(b":"):
        # Without a backslash every string is written as it was read, and none has a NUL: fewer colons, fewer keys.
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
    """Refuse NUL and too much depth. Without recursion: the value may be deeper than Python's stack."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise _too_deep()
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                # PostgreSQL's text type cannot hold NUL.
                if "\x00" in item:
                    raise malformed("nul", "Nội dung có ký tự NUL.", "The body contains a NUL character.")
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
        level, depth = below, depth + 1


class NoNul:
    """ASGI middleware that refuses a NUL in an address (400): PostgreSQL's text type cannot hold it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ("\x00" in scope["path"] or b"%00" in scope["query_string"]):
            problem = malformed("nul", "Địa chỉ có ký tự NUL.", "The address contains a NUL character.")
            await problem.response()(scope, receive, send)
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
    """The number in a header; 0 for anything that is no plain decimal number."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0
