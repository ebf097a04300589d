"""A number that cannot be one: nobody is told that it is issued until a person has asked the registry."""

from __future__ import annotations

import pytest

from shared.contract import events
from tests.workflow.test_lifecycle_number import birth, held_birth


@pytest.mark.parametrize("warning", ["length", "not-digits"])
def test_a_misshapen_number_is_not_issued_until_a_person_has_asked_the_registry(warning: str) -> None:
    centre = held_birth()
    assert centre.found(None, warning) == []
    assert [(task.stage, task.role) for task in centre.human_tasks] == [("id_number", "specialist")]
    assert centre.found(None, warning) == []
    assert centre.rejected() == []
    assert centre.complete("id_number")[0] == "IdNumberIssued"
    assert [task.stage for task in centre.human_tasks] == ["return"]
    centre.complete("return")
    assert centre.last(events.ResultReturned).without_number is False


def test_a_number_whose_year_or_sex_looks_odd_is_a_number() -> None:
    assert birth().found(None, "year", "sex") == ["IdNumberIssued"]


def test_while_a_misshapen_number_is_asked_about_the_signatory_may_return_without_it() -> None:
    centre = held_birth()
    centre.misshapen()
    centre.hour_comes()
    held = next(task for task in centre.human_tasks if task.kind == "number_held")
    assert held.role == "signatory"
    centre.dossier.tasks.sort(key=lambda task: task.kind != "number_held")
    centre.forward("id_number", "return")
    assert centre.last(events.ResultReturned).without_number is True
    assert [task.kind for task in centre.human_tasks] == ["number_misshapen"]
    assert centre.complete("id_number") == ["IdNumberIssued", "NoticeWanted"]
    assert [task.kind for task in centre.human_tasks] == ["number_late"]


@pytest.mark.parametrize("withdrawn_first", [True, False])
def test_a_misshapen_number_of_a_withdrawn_dossier_is_told_and_leaves_no_task(withdrawn_first: bool) -> None:
    centre = birth()
    for happens in (centre.withdraw, centre.misshapen) if withdrawn_first else (centre.misshapen, centre.withdraw):
        happens()
    assert centre.public.count("IdNumberIssued") == 1
    assert centre.dossier.tasks == []
