"""A campaign passes only when nothing is wrong: each single defect fails it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from deploy.chaos import __main__ as chaos
from deploy.chaos.answers import find_broken
from deploy.chaos.injector import Tally
from deploy.chaos.load import LoadGenerator
from deploy.verify.report import Report
from deploy.verify.stream import Stream
from deploy.verify.zeros import Zero, Zeros
from shared.fault_points import FAULT_POINTS
from tests.chaos.test_answers import Databases, databases_of_a_campaign
from tests.fixtures.outside import outside

__all__ = ["databases_of_a_campaign"]


class Campaign:
    """A campaign without defects; a test plants one."""

    def __init__(self, load: LoadGenerator) -> None:
        self.load = load
        self.tally = Tally(kills=1, hit=1, steps=Counter(FAULT_POINTS))
        zeros = Zeros(Zero(), Zero(), Zero(), waiting={}, set_aside={"parked": Zero()})
        self.report = Report(zeros, numbers_issued_twice=0, stream=Stream(complete=True), registry={})

    @property
    def zeros(self) -> Zeros:
        assert self.report.zeros is not None
        return self.report.zeros


def miss_a_fault_point(campaign: Campaign) -> None:
    del campaign.tally.steps[FAULT_POINTS[0]]


WRONG: dict[str, Callable[[Campaign], Any]] = {
    "lost 1, repeated 0": lambda campaign: campaign.load.accepted.update(key=str(uuid4())),
    "lost 0, repeated 1": lambda campaign: campaign.load.torn.append("key"),
    "refused ['500 POST intake']": lambda campaign: campaign.load.refused.append("500 POST intake"),
    "parked 1": lambda campaign: campaign.zeros.set_aside["parked"].add("parked", {}, limit=1),
    "NOT QUIET": lambda campaign: campaign.zeros.waiting.update(unsent=1),
    "disorder 1": lambda campaign: campaign.zeros.order_violations.add("swap", {}, limit=1),
    "the broker is silent": lambda campaign: campaign.report.troubles.append("the broker is silent"),
    f"not {FAULT_POINTS[0]}": miss_a_fault_point,
}


async def test_each_single_defect_fails_a_campaign(
    databases_of_a_campaign: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "find_broken", partial(find_broken, within_s=0))
    async with outside("deploy.sms_gateway", tmp_path) as gateway:
        endpoints = {"databases": databases_of_a_campaign.dsns, "sms": gateway.url}

        async def judge(change: Callable[[Campaign], Any], *, every_step: bool = True) -> tuple[bool, str]:
            campaign = Campaign(LoadGenerator(endpoints, seed=1, rate=1.0))
            change(campaign)
            limits = chaos.Limits(1, 60, 0, 0, every_step)
            verdict = await chaos._judge(endpoints, campaign.load, campaign.tally, campaign.report, limits)
            await campaign.load.close()
            return verdict.passed, verdict.lines

        assert (await judge(lambda _: None))[0]
        for words, change in WRONG.items():
            passed, lines = await judge(change)
            assert not passed, words
            assert words in lines
        assert (await judge(miss_a_fault_point, every_step=False))[0], (
            "a short campaign need not reach every fault point"
        )
        await databases_of_a_campaign.pools["idlookup"].execute("update requests set state = 'pending'")
        passed, lines = await judge(lambda _: None)
        assert not passed, "a request without an answer"
        assert "pending 1" in lines
