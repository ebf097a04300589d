"""Who calls: tokens, roles, and the officer's name, however the caller writes it into the header."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute

from shared.http.access import ROLES, Access, Caller, allow, officer_of, roles_of
from shared.http.problems import Problem

NAME = "Nguyễn Thị Ánh Đào"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("lan", "lan"),
        (NAME.encode().decode("latin-1"), NAME),
        ("UTF-8''Nguy%E1%BB%85n%20Th%E1%BB%8B%20%C3%81nh%20%C4%90%C3%A0o", NAME),
        ("utf-8''Lan%00%0A", "Lan"),
        ("utf-8''%ff", "\ufffd"),
        ("Jos\xe9", "José"),
        ("", ""),
        (" lan ", "lan"),
    ],
)
def test_an_officers_name_is_read_as_utf8_or_percent_encoded(header: str, name: str) -> None:
    assert officer_of(header) == name


def test_a_long_name_is_cut_between_letters() -> None:
    assert officer_of(("ễ" * 100).encode().decode("latin-1")) == "ễ" * 80


TOKENS = {"counter": "the counter's token", "ops": "the operators' token"}


def request(**headers: str) -> Request:
    app = FastAPI()
    app.state.access = Access(json.dumps(TOKENS))
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "headers": raw, "app": app})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_caller_has_the_role_of_the_token_and_the_name_in_the_header(scheme: str) -> None:
    token = f"{scheme} {TOKENS['counter']}"
    assert allow("counter")(request(authorization=token, x_officer="Lan")) == Caller("counter", "counter", "Lan")
    assert allow()(request(authorization=token)).officer == "counter"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer nonsense", f"Basic {TOKENS['ops']}", TOKENS["ops"]]
)
def test_without_a_valid_bearer_token_it_is_401(header: str) -> None:
    assert refusal(allow("ops"), request(authorization=header)) == (401, "unauthorized")
    assert refusal(allow(), request(authorization=header)) == (401, "unauthorized")


def test_with_another_role_it_is_403() -> None:
    by_counter = request(authorization=f"Bearer {TOKENS['counter']}")
    assert refusal(allow("ops", "system"), by_counter) == (403, "wrong-role")


def refusal(check: Any, asked: Request) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        check(asked)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize("tokens", [{"king": "x" * 20}, {"ops": "x" * 15}])
def test_an_unknown_role_or_a_short_token_stops_the_start(tokens: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"king|ops"):
        Access(json.dumps(tokens))


def test_a_route_says_which_roles_may_call_it() -> None:
    async def endpoint() -> None: ...

    def route(**more: Any) -> APIRoute:
        return APIRoute("/x", endpoint, **more)

    assert roles_of(route(dependencies=[Depends(allow("ops"))])) == ("ops",)
    assert roles_of(route(dependencies=[Depends(allow())])) == ROLES
    assert roles_of(route(openapi_extra={"x-roles": ["system"]}, dependencies=[Depends(allow("ops"))])) == ("system",)
    with pytest.raises(LookupError, match="/x"):
        roles_of(route())
