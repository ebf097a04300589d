"""A campaign ends well only when nothing it looks at is wrong: each by itself is enough to fail it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from deploy.chaos import __main__ as chaos
from deploy.chaos.answers import find_broken
from deploy.chaos.crowd import Crowd
from deploy.chaos.hand import Score
from deploy.verify.report import Report
from deploy.verify.stream import Stream
from deploy.verify.zeros import Zero, Zeros
from shared.fault_points import FAULT_POINTS
from tests.chaos.test_answers import Databases, databases_of_a_campaign
from tests.fixtures.outside import outside

__all__ = ["databases_of_a_campaign"]


class Campaign:
    """One that went well, until something is changed in it."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.score = Score(kills=1, hit=1, steps=Counter(FAULT_POINTS))
        zeros = Zeros(Zero(), Zero(), Zero(), waiting={}, set_aside={"parked": Zero()})
        self.report = Report(zeros, numbers_issued_twice=0, stream=Stream(complete=True), registry={})

    @property
    def zeros(self) -> Zeros:
        assert self.report.zeros is not None
        return self.report.zeros


def missed(campaign: Campaign) -> None:
    del campaign.score.steps[FAULT_POINTS[0]]


WRONG: dict[str, Callable[[Campaign], Any]] = {
    "lost 1, repeated 0": lambda campaign: campaign.crowd.accepted.update(key=str(uuid4())),
    "lost 0, repeated 1": lambda campaign: campaign.crowd.torn.append("key"),
    "refused ['500 POST intake']": lambda campaign: campaign.crowd.refused.append("500 POST intake"),
    "parked 1": lambda campaign: campaign.zeros.set_aside["parked"].add("parked", {}, limit=1),
    "NOT QUIET": lambda campaign: campaign.zeros.waiting.update(unsent=1),
    "disorder 1": lambda campaign: campaign.zeros.order_violations.add("swap", {}, limit=1),
    "the broker is silent": lambda campaign: campaign.report.troubles.append("the broker is silent"),
    f"not {FAULT_POINTS[0]}": missed,
}


async def test_each_thing_that_is_wrong_fails_a_campaign_by_itself(
    databases_of_a_campaign: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "find_broken", partial(find_broken, within_s=0))
    async with outside("deploy.sms_gateway", tmp_path) as gateway:
        stack: Any = SimpleNamespace(endpoints={"databases": databases_of_a_campaign.dsns, "sms": gateway.url})

        async def judge(change: Callable[[Campaign], Any], *, every_step: bool = True) -> tuple[bool, str]:
            campaign = Campaign(Crowd(stack.endpoints, seed=1, rate=1.0))
            change(campaign)
            size = chaos.Size(1, 60, 0, 0, every_step)
            good, line, _ = await chaos._judge(stack, campaign.crowd, campaign.score, campaign.report, size, "apache")
            await campaign.crowd.close()
            return good, line

        assert (await judge(lambda _: None))[0]
        for said, change in WRONG.items():
            good, line = await judge(change)
            assert not good, said
            assert said in line
        assert (await judge(missed, every_step=False))[0], "a short one need not reach every step"
        await databases_of_a_campaign.pools["idlookup"].execute("update requests set state = 'pending'")
        good, line = await judge(lambda _: None)
        assert not good, "a request that nobody answered"
        assert "pending 1" in line
