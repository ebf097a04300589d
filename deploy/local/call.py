"""Calls a service over HTTP. Uses only the standard library, so that the commands start quickly."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

from deploy.local.trouble import Trouble

_opener = build_opener(ProxyHandler({}))


class Refused(Trouble):
    """A service answered with an error: its `status`, the whole `problem`, and the problem's sentences."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        fallback = str(problem.get("title") or f"HTTP {status}")
        vietnamese = str(problem.get("detail") or problem.get("detail_en") or fallback)
        super().__init__(vietnamese, str(problem.get("detail_en") or vietnamese))
        self.status = status
        self.problem = problem


def call(
    base: str,
    path: str,
    *,
    token: str = "",
    method: str = "GET",
    body: Any = None,
    query: dict[str, Any] | None = None,
    timeout: float = 10.0,
) -> Any:
    """Return the JSON answer. `timeout` in seconds. Raises Refused for a status over 399, Trouble without an answer."""
    url = f"{base}{quote(path)}" + (f"?{urlencode(query)}" if query else "")
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = Request(url, json.dumps(body).encode() if body is not None else None, headers, method=method)
    try:
        with _opener.open(request, timeout=timeout) as answer:
            return json.loads(answer.read() or b"null")
    except HTTPError as refusal:
        with refusal:
            text = refusal.read()
        try:
            problem = json.loads(text)
        except ValueError:
            problem = {}
        raise Refused(refusal.code, problem if isinstance(problem, dict) else {}) from refusal
    except (OSError, HTTPException, ValueError) as error:
        raise Trouble(
            f"Không có trả lời từ {base}: {error}. Hệ thống có đang chạy không (`make up`)?",
            f"No answer from {base}: {error}. Is the stack running (`make up`)?",
        ) from error
