"""Who calls: bearer tokens, roles, and the roles that each endpoint declares."""

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
    """Somebody with a valid token."""

    role: str
    name: str
    """Idempotency keys belong to this name."""
    officer: str
    """The person who acts, from the header `X-Officer`; the role where the header is missing."""


class Access:
    """The tokens that a service accepts."""

    def __init__(self, tokens: str) -> None:
        """`tokens` is JSON, {role: token}. Raises ValueError for an unknown role or a token that is too short."""
        token_of: dict[str, str] = json.loads(tokens)
        for role, token in token_of.items():
            if role not in ROLES:
                raise ValueError(f"there is no role {role}")
            if len(token) < 16:
                raise ValueError(f"the token of {role} is shorter than 16 characters")
        self._tokens = {role: token.encode() for role, token in token_of.items()}

    def find_caller(self, request: Request) -> Caller | None:
        """The caller whose token the request carries; None without a valid token."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            return None
        caller_role, sent = None, text.encode()
        for role, token in self._tokens.items():  # every token is compared: the time says nothing about them
            if hmac.compare_digest(sent, token):
                caller_role = role
        if caller_role is None:
            return None
        officer = officer_of(request.headers.get("x-officer", "")) or caller_role
        return Caller(caller_role, caller_role, officer)


def officer_of(header: str) -> str:
    """The name in an `X-Officer` header, at most 80 letters: UTF-8, or as in RFC 8187 (`UTF-8''Nguy%E1%BB%85n`)."""
    if header[:7].lower() == "utf-8''":
        text = unquote(header[7:], errors="replace")
    else:
        try:
            text = header.encode("latin-1").decode("utf-8")  # Starlette decodes headers as latin-1
        except UnicodeError:
            text = header
    return "".join(letter for letter in text if letter.isprintable()).strip()[:80]


def allow(*roles: str) -> Callable[[Request], Caller]:
    """A route dependency that returns the caller, who must have one of `roles` (without `roles`: any role).

    It raises Problem 401 and 403.
    """

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
    """The roles that may call a route: those of its `x-roles`, or of its `allow` dependency.

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
