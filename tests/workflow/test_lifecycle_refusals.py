"""A refused command changes nothing: not the dossier, not a blank, not a code, not an id."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.workflow import lifecycle
from services.workflow.lifecycle import Task
from services.workflow.procedures import Procedure
from shared.refusals import Refused
from tests.workflow.lifecycle_scenes import BIRTH, COPIES, LAND, Centre, rules, steps

CODES = sorted({outcome.code for outcomes in lifecycle.OUTCOMES.values() for outcome in outcomes})
CONFLICTS = {
    "already-ended",
    "four-eyes",
    "held-by-another",
    "no-blank",
    "no-step-before",
    "procedure-record-only",
    "request-still-open",
    "stale-version",
    "supplement-already-asked",
}
"""Refusals because of the present state (HTTP 409). All others are about the command itself (422)."""
COPIES_RULES = rules(COPIES)
COMPONENTS = sorted(component.code for component in rules(LAND).components)


def good_or_bad(good: str) -> st.SearchStrategy[Any]:
    return st.sampled_from([good, good, good, None, "", "XX.", "x" * 500, 7])


attempts = st.fixed_dictionaries(
    {
        "choice": st.sampled_from([0, 0, 0, 1, 2]),
        "foreign_outcome": st.none() | st.none() | st.sampled_from([*CODES, "no_such"]),
        "stale": st.sampled_from([0, 0, 0, 0, 1]),
        "holder": st.sampled_from(["person 0", "person 1"]),
        "note": st.sampled_from(["lý do", "lý do", " ", None]),
        "foreign_field": st.sampled_from([False, False, False, True]),
        "fields": st.fixed_dictionaries(
            {},
            optional={
                "signed_by": good_or_bad("Trần B"),
                "signed_as": good_or_bad("KT."),
                "signature": good_or_bad("wet"),
                "number": good_or_bad("12/2025"),
                "book": good_or_bad("01/KS"),
                "components": good_or_bad("x") | st.lists(st.sampled_from([*COMPONENTS, "no_such"]), max_size=3),
            },
        ),
        "open_for_reception": st.booleans(),
        "start": st.sampled_from([False, False, False, True]),
        "blanks": st.integers(0, 1),
    }
)


def at_reception(procedure: Procedure) -> Centre:
    centre = Centre(procedure)
    centre.submit(caller_role="system", channel="online")
    return centre


@cache
def land(**changed: Any) -> Procedure:
    stages = steps("appraisal", "consultation", "approval", "issuing", "return")
    return rules(LAND, identity_check="none", steps=stages, **changed)


def at_step(stage: str, **changed: Any) -> Centre:
    """A land dossier whose current step is `stage`."""
    centre = Centre(land(**changed), blanks=9)
    centre.submit()
    while centre.human_tasks[0].stage != stage:
        task = centre.human_tasks[0]
        centre.complete(task.stage, holder="person 0" if task.stage == "appraisal" else "another person")
    return centre


@cache
def birth_rules(*stages: str, **changed: Any) -> Procedure:
    return rules(BIRTH, steps=steps(*stages), **changed)


def birth(*happenings: str, **changed: Any) -> Centre:
    """A birth dossier after these happenings: stages to complete, or names of methods of the centre."""
    centre = Centre(birth_rules("appraisal", "approval", "return", **changed))
    centre.submit()
    for happening in happenings:
        if hasattr(centre, happening):
            getattr(centre, happening)()
        else:
            centre.complete(happening)
    return centre


def same_visit() -> Centre:
    centre = Centre(COPIES_RULES)
    centre.submit()
    return centre


def mismatch(**changed: Any) -> Centre:
    centre = birth(identity_check="required", **changed)
    centre.identity_checked("mismatch")
    return centre


def first_step() -> Centre:
    centre = Centre(birth_rules("approval", "return"))
    centre.submit()
    return centre


def asked_once() -> Centre:
    """Back at appraisal, after the one supplement that may be asked for."""
    centre = at_step("appraisal")
    centre.complete("appraisal", "ask_supplement", note="x")
    centre.supplement()
    return centre


HELD = ("appraisal", "approval", "hold_time_comes")
SCENES: dict[str, Callable[[], Centre]] = {
    "reception": lambda: at_reception(land()),
    "same_visit": same_visit,
    "appraisal": lambda: at_step("appraisal"),
    "appraisal, a supplement was asked for": asked_once,
    "financial_obligation": lambda: at_step("financial_obligation"),
    "consultation": lambda: at_step("consultation"),
    "approval": lambda: at_step("approval"),
    "approval, four eyes": lambda: at_step("approval", four_eyes=True),
    "approval, the first step": first_step,
    "issuing": lambda: at_step("issuing"),
    "return": lambda: at_step("return"),
    "identity_mismatch": mismatch,
    "number_held": lambda: birth(*HELD),
    "number_doubtful, the request is open": lambda: birth("duplicate_suspected"),
    "number_doubtful, the request was refused": lambda: birth("number_refused"),
    "number_misshapen": lambda: birth("misshapen_number_found"),
    "number_late": lambda: birth(*HELD, "id_number", "return", "number_found"),
    "awaited": birth,
}


def attempt(centre: Centre, task: Task, how: dict[str, Any]) -> None:
    """Start or complete a task as `how` says. After a refusal everything is as before."""
    centre.blanks = how["blanks"]
    own = lifecycle.OUTCOMES[task.kind]
    chosen = own[how["choice"] % len(own)] if own else None
    outcome = how["foreign_outcome"] or (chosen.code if chosen else "no_such")
    known = chosen.fields if chosen else ()
    fields = {name: value for name, value in how["fields"].items() if name in known or how["foreign_field"]}
    version = task.version + how["stale"]
    before, resources = centre.dossier.to_json(), centre.resources
    try:
        if how["start"]:
            lifecycle.start(centre.dossier, task, centre.context(), version=version, holder=how["holder"])
        else:
            completion = lifecycle.Completion(
                outcome=outcome,
                version=version,
                holder=how["holder"],
                note=how["note"],
                fields=fields,
                open_for_reception=how["open_for_reception"],
            )
            lifecycle.complete(centre.dossier, centre.rules, task, centre.context(), completion)
    except Refused as error:
        refused = error
    else:
        return
    case = f"{task.kind}, {outcome}: {refused.code}"
    assert centre.dossier.to_json() == before, f"{case} changed the dossier"
    assert centre.resources == resources, f"{case} used something up"
    assert refused.conflict == (refused.code in CONFLICTS), case


def test_every_kind_of_task_has_a_scene() -> None:
    assert {name.partition(",")[0] for name in SCENES} == lifecycle.OUTCOMES.keys()


@pytest.mark.parametrize("scene", SCENES)
@given(tries=st.lists(attempts, min_size=3, max_size=10))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_refused_start_or_completion_changes_nothing(scene: str, tries: list[dict[str, Any]]) -> None:
    centre = SCENES[scene]()
    kind = scene.partition(",")[0]
    for how in tries:
        task = next((task for task in centre.dossier.tasks if task.kind == kind), None)
        if task is not None:
            attempt(centre, task, how)


@pytest.mark.parametrize("scene", SCENES)
@given(
    result=st.dictionaries(
        st.sampled_from(["number", "book", "signed_by", "signed_as", "signature", "sha256"]),
        st.sampled_from(["1", "KT.", "wet", "wet_scanned", "digital"]),
    )
)
@settings(max_examples=20, deadline=None)
def test_a_refused_result_changes_nothing(scene: str, result: dict[str, Any]) -> None:
    centre = SCENES[scene]()
    before = centre.dossier.to_json()
    try:
        lifecycle.set_result(centre.dossier, centre.rules, result)
    except Refused:
        assert centre.dossier.to_json() == before


def test_a_bad_number_takes_no_blank() -> None:
    centre = at_step("issuing")
    with pytest.raises(Refused) as refused:
        centre.complete("issuing", fields={"number": "x" * 500})
    assert (refused.value.code, centre.blanks, centre.dossier.blank) == ("bad-field", 9, None)


def test_a_bad_number_leaves_no_signature_behind() -> None:
    centre = same_visit()
    with pytest.raises(Refused):
        centre.complete("return", fields={"signed_by": "Trần B", "number": 5})
    assert (centre.dossier.result, "ResultSigned" in centre.public) == (None, False)
