"""An answer that was given and does not stand afterwards is found, of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import pytest_asyncio

from deploy.chaos import answers
from deploy.chaos.answers import Broken, Given, find_broken
from tests.fixtures.databases import MakePool
from tests.fixtures.waiting import wait_until

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

DOSSIER, TASK, KEY = uuid4(), uuid4(), "chaos-1-1-w"


class Databases:
    """The three that are asked, with one submission, one closed task, one withdrawal and one number found."""

    def __init__(self, dsns: dict[str, str], pools: dict[str, Pool]) -> None:
        self.dsns, self.pools = dsns, pools

    async def fill(self) -> None:
        await self.pools["intake"].execute(
            "insert into submissions (dossier_id, caller, idempotency_key, body_digest, procedure_code,"
            " procedure_version, receiving_agency, channel, submitted_at, trace_id, components)"
            " values ($1, 'counter', 'chaos-1-1', '', '1.001193', 1, 'H44.XXX', 'direct', now(), $1, '[]')",
            DOSSIER,
        )
        await self.pools["intake"].execute(
            "insert into requests (caller, idempotency_key, dossier_id, kind, body_digest)"
            " values ('counter', $1, $2, 'withdrawal', '')",
            KEY,
            DOSSIER,
        )
        await self.pools["workflow"].execute(
            "insert into tasks (task_id, dossier_id, procedure_code, procedure_group, agency, stage, version, state,"
            " outcomes, entered_at, entered_office_at, outcome)"
            " values ($1, $2, '1.001193', 'birth', 'H44.XXX', 'appraisal', 2, 'closed', '[]', now(), now(), 'propose')",
            TASK,
            DOSSIER,
        )
        await self.pools["idlookup"].execute(
            "insert into requests (request_key, dossier_id, kind, sealed, trace_id, state, wanted_at, next_try_at)"
            " values ($1, $2, 'issue', 'k.x', $2, 'found', now(), now())",
            uuid4(),
            DOSSIER,
        )


@pytest_asyncio.fixture
async def databases_of_a_campaign(make_pool: MakePool) -> AsyncIterator[Databases]:
    dsns, pools = {}, {}
    for service in ("intake", "workflow", "idlookup"):
        dsns[service], pools[service] = await make_pool.with_dsn("shared", f"services.{service}")
    made = Databases(dsns, pools)
    await made.fill()
    yield made


GIVEN = Given({"chaos-1-1": str(DOSSIER)}, {str(TASK): "propose"}, {KEY: (str(DOSSIER), "withdrawal")})


async def test_answers_that_stand_are_not_complained_of(databases_of_a_campaign: Databases) -> None:
    assert await find_broken(databases_of_a_campaign.dsns, GIVEN, within_s=0) == Broken()


async def test_a_submission_a_completion_and_a_request_that_nobody_knows_are_forgotten(
    databases_of_a_campaign: Databases,
) -> None:
    lost = Given({"k": str(uuid4())}, {str(uuid4()): "propose"}, {"k-s": (str(DOSSIER), "supplement")})
    broken = await find_broken(databases_of_a_campaign.dsns, lost, within_s=0)
    assert (broken.submissions, broken.tasks, broken.requests) == (
        [*lost.accepted.values()],
        [*lost.completed],
        [*lost.asked],
    )
    assert broken.forgotten == 3


async def test_a_task_that_is_open_again_or_ended_otherwise_is_forgotten(databases_of_a_campaign: Databases) -> None:
    for change in ("state = 'open'", "state = 'closed', outcome = 'refuse'"):
        await databases_of_a_campaign.pools["workflow"].execute(f"update tasks set {change}")
        assert (await find_broken(databases_of_a_campaign.dsns, GIVEN, within_s=0)).tasks == [str(TASK)]


async def test_a_key_that_stands_for_another_dossiers_request_is_forgotten(databases_of_a_campaign: Databases) -> None:
    other = Given(asked={KEY: (str(uuid4()), "withdrawal")})
    assert (await find_broken(databases_of_a_campaign.dsns, other, within_s=0)).requests == [KEY]


async def test_a_request_still_pending_is_counted(databases_of_a_campaign: Databases) -> None:
    await databases_of_a_campaign.pools["idlookup"].execute("update requests set state = 'pending'")
    assert (await find_broken(databases_of_a_campaign.dsns, GIVEN, within_s=0)).pending == 1


async def test_a_request_that_is_answered_in_the_time_left_is_not_counted(
    databases_of_a_campaign: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = databases_of_a_campaign.pools["idlookup"]
    await requests.execute("update requests set state = 'pending'")
    fetch, looked = answers._fetch, 0

    async def watched(dsn: str, query: str) -> list[Any]:
        nonlocal looked
        found = await fetch(dsn, query)
        looked += "id_requests" in query
        return found

    monkeypatch.setattr(answers, "_fetch", watched)
    asking = asyncio.create_task(find_broken(databases_of_a_campaign.dsns, GIVEN, within_s=20))
    await wait_until(lambda: looked)
    await requests.execute("update requests set state = 'found'")
    assert (await asyncio.wait_for(asking, 20)).pending == 0
