"""Who is calling: bearer tokens, roles, and the declared roles of every endpoint."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from fastapi import Request
from fastapi.routing import APIRoute

from shared.http.problems import Problem

ROLES = ("counter", "specialist", "signatory", "records_clerk", "centre_director", "ops", "system")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a valid token. `name` scopes idempotency keys; `officer` says whose hand it was, where told."""

    role: str
    name: str
    officer: str


class Access:
    """The tokens this service accepts: JSON {role: token}. Raises ValueError for an unknown role or a short token."""

    def __init__(self, tokens: str) -> None:
        given: dict[str, str] = json.loads(tokens)
        for role, token in given.items():
            if role not in ROLES:
                raise ValueError(f"no role is called {role}")
            if len(token) < 16:
                raise ValueError(f"the token of {role} is shorter than 16 characters")
        self._tokens = {role: token.encode() for role, token in given.items()}

    def find_caller(self, request: Request) -> Caller | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            return None
        found, told = None, given.encode()
        for role, token in self._tokens.items():
            if hmac.compare_digest(told, token):
                found = role
        if found is None:
            return None
        officer = officer_of(request.headers.get("x-officer", "")) or found
        return Caller(found, found, officer)


def officer_of(said: str) -> str:
    """The name in an `X-Officer` header: UTF-8 as it is, or as in RFC 8187 (`UTF-8''Nguy%E1%BB%85n`)."""
    if said[:7].lower() == "utf-8''":
        text = unquote(said[7:], errors="replace")
    else:
        try:
            text = said.encode("latin-1").decode("utf-8")  # HTTP hands each byte over as a character
        except UnicodeError:
            text = said
    return "".join(letter for letter in text if letter.isprintable()).strip()[:80]


def allow(*roles: str) -> Callable[[Request], Caller]:
    """A route dependency: the caller, who must have one of `roles` (none given: any role). Raises Problem 401, 403."""

    def check(request: Request) -> Caller:
        access: Access = request.app.state.access
        caller = access.find_caller(request)
        if caller is None:
            raise unauthorized()
        if roles and caller.role not in roles:
            raise Problem(
                403,
                "wrong-role",
                vi="Vai trò này không được làm việc đó.",
                en=f"This needs the role {' or '.join(roles)}.",
            )
        return caller

    check.roles = roles or ROLES  # type: ignore[attr-defined] # read by the generated table of roles and endpoints
    return check


def roles_of(route: APIRoute) -> tuple[str, ...]:
    """The roles that may call a route: those of its `allow` dependency, or those said in its `x-roles`.

    Raises LookupError for a route that declares none.
    """
    declared = (route.openapi_extra or {}).get("x-roles")
    if declared is not None:
        return tuple(declared)
    for dependency in route.dependant.dependencies:
        roles = getattr(dependency.call, "roles", None)
        if roles is not None:
            return tuple(roles)
    raise LookupError(f"{route.path} declares no role")


def unauthorized() -> Problem:
    return Problem(401, "unauthorized", vi="Cần mã truy cập hợp lệ.", en="A valid bearer token is needed.")
