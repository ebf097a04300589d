"""The campaign finds each kind of successful answer whose effect is missing afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import pytest_asyncio

from deploy.chaos import answers
from deploy.chaos.answers import Answers, BrokenAnswers, LaterRequest, find_broken
from tests.fixtures.databases import MakePool
from tests.fixtures.waiting import wait_until

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

DOSSIER, TASK, KEY = uuid4(), uuid4(), "chaos-1-1-w"


class Databases:
    """The three databases with one submission, one closed task, one withdrawal and one number found."""

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
    databases = Databases(dsns, pools)
    await databases.fill()
    yield databases


GIVEN = Answers({"chaos-1-1": str(DOSSIER)}, {str(TASK): "propose"}, {KEY: LaterRequest(str(DOSSIER), "withdrawal")})


async def test_answers_with_their_effects_are_accepted(databases_of_a_campaign: Databases) -> None:
    assert await find_broken(databases_of_a_campaign.dsns, GIVEN, within_s=0) == BrokenAnswers()


async def test_an_unknown_submission_completion_or_request_counts_as_forgotten(
    databases_of_a_campaign: Databases,
) -> None:
    lost = Answers({"k": str(uuid4())}, {str(uuid4()): "propose"}, {"k-s": LaterRequest(str(DOSSIER), "supplement")})
    broken = await find_broken(databases_of_a_campaign.dsns, lost, within_s=0)
    assert (broken.submissions, broken.tasks, broken.requests) == (
        [*lost.accepted.values()],
        [*lost.completed],
        [*lost.requested],
    )
    assert broken.forgotten == 3


async def test_a_task_that_is_open_again_or_has_another_outcome_counts_as_forgotten(
    databases_of_a_campaign: Databases,
) -> None:
    for change in ("state = 'open'", "state = 'closed', outcome = 'refuse'"):
        await databases_of_a_campaign.pools["workflow"].execute(f"update tasks set {change}")
        assert (await find_broken(databases_of_a_campaign.dsns, GIVEN, within_s=0)).tasks == [str(TASK)]


async def test_a_key_with_another_dossiers_request_counts_as_forgotten(databases_of_a_campaign: Databases) -> None:
    other = Answers(requested={KEY: LaterRequest(str(uuid4()), "withdrawal")})
    assert (await find_broken(databases_of_a_campaign.dsns, other, within_s=0)).requests == [KEY]


async def test_a_request_still_pending_is_counted(databases_of_a_campaign: Databases) -> None:
    await databases_of_a_campaign.pools["idlookup"].execute("update requests set state = 'pending'")
    assert (await find_broken(databases_of_a_campaign.dsns, GIVEN, within_s=0)).pending == 1


async def test_a_request_answered_within_the_time_limit_is_not_counted(
    databases_of_a_campaign: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = databases_of_a_campaign.pools["idlookup"]
    await requests.execute("update requests set state = 'pending'")
    fetch, queries = answers._fetch, 0

    async def watched(dsn: str, query: str) -> list[Any]:
        nonlocal queries
        rows = await fetch(dsn, query)
        queries += "id_requests" in query
        return rows

    monkeypatch.setattr(answers, "_fetch", watched)
    search = asyncio.create_task(find_broken(databases_of_a_campaign.dsns, GIVEN, within_s=20))
    await wait_until(lambda: queries)
    await requests.execute("update requests set state = 'found'")
    assert (await asyncio.wait_for(search, 20)).pending == 0
