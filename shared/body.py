"""JSON in and out of HTTP: strict UTF-8, no NUL, no lone surrogates, no doubled or non-finite numbers, a size limit."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from starlette.requests import Request

from shared.problems import malformed, too_large, wrong_type

LIMIT = 256 * 1024
"""Bytes of a request body."""


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON; datetimes as RFC 3339, UUIDs as text."""
    return orjson.dumps(value, default=str)


def digest(value: Any) -> bytes:
    """SHA-256 of the canonical form (sorted keys): two bodies are the same when these are."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()


async def read_object(request: Request) -> dict[str, Any]:
    """The request's body as a JSON object. Raises Problem 400, 413 or 415."""
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
    # NUL can stand in valid JSON only as an escape; PostgreSQL's text cannot hold it.
    if b"\\u0000" in body and _has_nul(value):
        raise malformed("nul", "Nội dung có ký tự NUL.", "The body contains a NUL character.")
    return value


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(_has_nul(item) for item in value)
    return False


def int_or_zero(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0
