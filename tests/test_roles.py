"""The table of roles and endpoints is true: every route is asked with every role's token, and without one."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import httpx2
import pytest

from deploy.docs import access, services
from shared.http.access import ROLES, Access
from tests.fixtures.services import TOKENS

SERVICES = sorted(services.SERVICES)
VALUES = {"code": "birth_declaration", "id": "1", "reference": str(uuid.UUID(int=7))}


def _address(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda part: VALUES.get(part[1], str(uuid.UUID(int=7))), path)


async def _statuses(service: str, token: str | None) -> dict[tuple[str, str], int]:
    app = services.describe(service).app
    app.state.access = Access(json.dumps(TOKENS))
    headers = {"Idempotency-Key": "roles"} | ({"Authorization": f"Bearer {token}"} if token else {})
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://service", headers=headers) as client:
        return {
            (method, path): (await client.request(method, _address(path), json={})).status_code
            for method, path, _, _ in access.routes_of(service)
        }


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("role", ROLES)
async def test_a_role_may_do_what_the_table_says_and_nothing_else(service: str, role: str) -> None:
    answered = await _statuses(service, TOKENS[role])
    for method, path, roles, _ in access.routes_of(service):
        status = answered[method, path]
        if not roles:
            continue  # by the citizen's own secret alone
        # There is no database here: whoever may call is let through to a 503, or told what his request lacks.
        assert (status == 403) == (role not in roles), f"{role}: {method} {path} answered {status}"
        assert status != 401


@pytest.mark.parametrize("service", SERVICES)
async def test_nobody_without_a_token_gets_in(service: str) -> None:
    for token in (None, "x" * 20):
        answered = await _statuses(service, token)
        for method, path, roles, _ in access.routes_of(service):
            assert answered[method, path] in ({401} if roles else {401, 404, 422, 503}), f"{method} {path}"


def test_the_committed_table_is_what_the_routes_say() -> None:
    assert (Path(__file__).parents[1] / "docs/roles.md").read_text("utf-8") == access.page()
