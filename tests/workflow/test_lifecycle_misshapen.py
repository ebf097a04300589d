"""A misshapen number: it is not published as issued until a specialist has asked the registry."""

from __future__ import annotations

import pytest

from shared.contract import events
from tests.workflow.test_lifecycle_number import birth, held_birth


@pytest.mark.parametrize("warning", ["length", "not-digits"])
def test_a_misshapen_number_is_not_issued_until_a_specialist_has_asked_the_registry(warning: str) -> None:
    centre = held_birth()
    assert centre.number_found(None, warning) == []
    assert [(task.stage, task.role) for task in centre.human_tasks] == [("id_number", "specialist")]
    assert centre.number_found(None, warning) == []
    assert centre.number_refused() == []
    assert centre.complete("id_number")[0] == "IdNumberIssued"
    assert [task.stage for task in centre.human_tasks] == ["return"]
    centre.complete("return")
    assert centre.last(events.ResultReturned).without_number is False


def test_a_number_with_an_unexpected_year_or_sex_is_issued() -> None:
    assert birth().number_found(None, "year", "sex") == ["IdNumberIssued"]


def test_while_a_misshapen_number_is_asked_about_the_signatory_may_return_without_it() -> None:
    centre = held_birth()
    centre.misshapen_number_found()
    centre.hold_time_comes()
    held = next(task for task in centre.human_tasks if task.kind == "number_held")
    assert held.role == "signatory"
    centre.dossier.tasks.sort(key=lambda task: task.kind != "number_held")
    centre.forward("id_number", "return")
    assert centre.last(events.ResultReturned).without_number is True
    assert [task.kind for task in centre.human_tasks] == ["number_misshapen"]
    assert centre.complete("id_number") == ["IdNumberIssued", "NoticeWanted"]
    assert [task.kind for task in centre.human_tasks] == ["number_late"]


@pytest.mark.parametrize("withdrawn_first", [True, False])
def test_a_misshapen_number_of_a_withdrawn_dossier_is_published_and_leaves_no_task(withdrawn_first: bool) -> None:
    centre = birth()
    happenings = [centre.withdraw, centre.misshapen_number_found]
    for happening in happenings if withdrawn_first else reversed(happenings):
        happening()
    assert centre.public.count("IdNumberIssued") == 1
    assert centre.dossier.tasks == []
