"""In any order of facts and commands: no gap in a sequence, only allowed statuses, one code, and an end is final."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.workflow import lifecycle
from services.workflow.lifecycle import Dossier, Task
from shared.contract.events import LIFECYCLE, LifecycleFact
from shared.contract.stages import MACHINE
from shared.refusals import Refused
from tests.workflow.lifecycle_scenes import BIRTH, BUSINESS, COPIES, LAND, Centre, rules, steps

PROCEDURES = [
    rules(BIRTH),
    rules(LAND),
    rules(COPIES),
    rules(BUSINESS),
    rules(BIRTH, identity_check="required", steps=steps("approval", "return")),
    rules(BIRTH, steps=steps("return")),
]
NEXT_STATUSES = {
    None: {1},
    1: {1, 2, 3, 5, 7},
    2: {4, 5, 6, 7, 8, 9},
    3: set(),
    4: {5, 6, 7, 8, 9},
    5: {1, 2, 3, 4, 7, 8},
    6: {4, 7, 8},
    7: set(),
    8: set(),
    9: {10},
    10: set(),
}
FACTS_AFTER_AN_END = {"IdNumberIssued", "RequestDeclined"}
FACTS_AND_TIMERS = (
    "supplement",
    "withdraw",
    "number_found",
    "misshapen_number_found",
    "number_delayed",
    "duplicate_suspected",
    "number_refused",
    "match",
    "mismatch",
    "opened",
    "hour",
)

happenings = st.lists(
    st.one_of(
        st.tuples(st.just("task"), st.integers(0, 5), st.sampled_from([None, None, None, 0, 1, 2, 3])),
        st.tuples(st.sampled_from(FACTS_AND_TIMERS), st.integers(0, 0), st.none()),
        st.tuples(st.just("time"), st.integers(1, 40), st.none()),
    ),
    max_size=25,
)
submissions = st.fixed_dictionaries(
    {
        "caller_role": st.sampled_from(["counter", "system"]),
        "channel": st.sampled_from(["direct", "online", "post"]),
        "has_personal_id": st.booleans(),
        "open_for_reception": st.booleans(),
    }
)


def happen(centre: Centre, what: str, number: int, choice: int | None) -> None:
    """Let one thing happen if it can happen now. A refusal is allowed, any other error is raised."""
    match what:
        case "task" if centre.human_tasks:
            task = centre.human_tasks[number % len(centre.human_tasks)]
            outcomes = lifecycle.OUTCOMES[task.kind]
            chosen = next(o for o in outcomes if o.forward) if choice is None else outcomes[choice % len(outcomes)]
            same_stage = centre.dossier.find_open_task(task.stage, machine=False)
            try:
                if same_stage is task:
                    centre.complete(task.stage, chosen.code, note="lý do", holder=f"person {number}")
            except Refused:
                pass
        case (
            "supplement"
            | "withdraw"
            | "number_found"
            | "misshapen_number_found"
            | "number_delayed"
            | "duplicate_suspected"
            | "number_refused"
        ):
            getattr(centre, what)()
        case "match" | "mismatch":
            centre.identity_checked(what)
        case "opened":
            centre.open_procedure()
        case "hour" if "number_hold" in centre.timers:
            centre.hold_time_comes()
        case "time":
            centre.pass_days(number)


def check(centre: Centre) -> None:
    sequences: dict[str, list[int]] = defaultdict(list)
    for event in centre.emitted:
        sequences[type(event.fact).topic].append(event.sequence)
    for topic, numbers in sequences.items():
        assert numbers == list(range(1, len(numbers) + 1)), f"a gap on {topic}"
    assert len({event.ce_id for event in centre.emitted}) == len(centre.emitted)
    assert len(sequences[LIFECYCLE]) == centre.dossier.lifecycle_sequence

    before: int | None = None
    for status in centre.statuses:
        assert status in NEXT_STATUSES[before], f"{before} -> {status}"
        before = status
    assert before == centre.dossier.national_status

    facts = [event.fact for event in centre.emitted if isinstance(event.fact, LifecycleFact)]
    codes = [fact.dossier_code for fact in facts if hasattr(fact, "dossier_code")]
    assert len(codes) <= 1
    assert centre.dossier.dossier_code == (codes[0] if codes else None)
    assert sum(centre.codes.values()) == len(codes)
    ended = next((i for i, fact in enumerate(facts) if fact.national_status in (3, 7, 8, 10)), len(facts))
    assert {type(fact).__name__ for fact in facts[ended + 1 :]} <= FACTS_AFTER_AN_END
    assert centre.dossier.ended == (ended < len(facts))
    assert centre.public.count("IdNumberIssued") <= 1
    assert centre.public.count("ResultReturned") <= 1
    assert len([task for task in centre.dossier.tasks if task.kind in STEPS]) <= 1, "one officer's step at a time"
    assert max(Counter(task.stage for task in centre.dossier.tasks if is_counted(task)).values(), default=0) <= 1
    if centre.dossier.ended:
        assert all(task.stage == "id_number" for task in centre.dossier.tasks)
    assert len({task.task_id for task in centre.closed}) == len(centre.closed), "a task ends once"


def is_counted(task: Task) -> bool:
    """Whether the stage figures count the task, one task per dossier (`stages.queries.OPEN_TASKS`)."""
    return task.role is None or task.stage not in MACHINE


STEPS = {
    "reception",
    "same_visit",
    "appraisal",
    "consultation",
    "financial_obligation",
    "approval",
    "issuing",
    "return",
}


def complete_all(centre: Centre) -> None:
    """Complete every task forward until none is left, and let come what is awaited besides."""
    for _ in range(60):
        if centre.dossier.state == "recorded":
            centre.open_procedure()
        elif centre.dossier.state == "supplement_requested":
            centre.supplement()
        elif centre.human_tasks:
            centre.complete(centre.human_tasks[0].stage)
        elif "number_hold" in centre.timers:
            centre.hold_time_comes()
        elif centre.dossier.check_state == "wanted" and not centre.dossier.ended:
            centre.identity_checked("match")
        else:
            return
    raise AssertionError(f"the dossier does not end: {centre.dossier.state}, {centre.open_stages}")


@given(st.sampled_from(PROCEDURES), submissions, happenings)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_in_any_order_of_facts_and_commands_a_dossier_stays_lawful(
    procedure: Any, how: dict[str, Any], story: list[tuple[str, int, int | None]]
) -> None:
    centre = Centre(procedure, blanks=50, round_trip=True)
    centre.submit(**how)
    for what, number, choice in story:
        happen(centre, what, number, choice)
        check(centre)
    complete_all(centre)
    check(centre)
    assert centre.dossier.ended, centre.dossier.state
    if not {"withdrawn", "refused", "not_accepted"} & {centre.dossier.state}:
        assert centre.dossier.national_status == 10


@given(st.sampled_from(PROCEDURES), submissions, happenings)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_state_that_was_stored_and_loaded_decides_the_same(
    procedure: Any, how: dict[str, Any], story: list[tuple[str, int, int | None]]
) -> None:
    kept, stored = Centre(procedure, blanks=5), Centre(procedure, blanks=5, round_trip=True)
    for centre in (kept, stored):
        centre.submit(**how)
        for what, number, choice in story:
            happen(centre, what, number, choice)
    assert kept.emitted == stored.emitted
    assert kept.dossier == Dossier.from_json(stored.dossier.to_json())


def test_stored_rows_keep_the_names_of_their_times() -> None:
    """Python says `_office_at`; rows that were stored under other names must still load."""
    centre = Centre(rules(LAND))
    centre.submit()
    row = orjson.loads(centre.dossier.to_json())
    assert {"recorded_at", "received_at", "due_at"} <= row.keys()
    assert {"entered_at", "entered_office_at", "due_at"} <= row["tasks"][0].keys()
    assert not {name for name in row if name.endswith("_office_at")}
    assert Dossier.from_json(orjson.dumps(row)) == centre.dossier
