"""Every fact and field has a meaning in both languages, and the documented values are those that the services use."""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args
from uuid import UUID

import pytest
from pydantic import BaseModel

from deploy.docs import access, meanings, schemas
from services.idlookup import numbers
from services.idlookup import rules as registry_rules
from services.idlookup.rules import FINAL
from services.notify import rules as notify_rules
from services.workflow.lifecycle import OUTCOMES, STATES, decision_builder
from services.workflow.procedures import GROUPS, Procedure
from shared.contract.events import (
    EVENT_TYPES,
    LIFECYCLE,
    STATE,
    TOPICS,
    DossierSubmitted,
    Fact,
    Heartbeat,
    IdCheckAnswered,
    LifecycleFact,
    NoticeFailed,
    NoticeWanted,
    SubmittedComponent,
)
from shared.contract.stages import STAGES
from shared.submission import form
from tests.project.parts import modules
from tests.workflow.lifecycle_scenes import BUSINESS, LAND, Centre, rules, steps
from tests.workflow.test_lifecycle_any_order import PROCEDURES, happen

FACTS = {kind.__name__: kind for kind in EVENT_TYPES.values()}
NAMES = sorted([*FACTS, meanings.STATE_NAME])
STORIES = 2_000
FILING = ("POST", "/v1/dossiers")


def documented(name: str, field: str) -> set[str]:
    return set(meanings.of_field(name, field).values)


def fields_of(name: str) -> list[str]:
    return list(schemas.STATE_FIELDS if name == meanings.STATE_NAME else FACTS[name].model_fields)


@pytest.mark.parametrize("name", NAMES)
def test_a_fact_and_its_fields_have_a_meaning_in_both_languages(name: str) -> None:
    fact = meanings.of_fact(name)
    texts = [fact, *(meanings.of_field(name, field).meaning for field in fields_of(name))]
    for text in texts:
        assert len(text.en) > 3, name
        assert len(text.vi) > 3, name
        assert text.en[-1] == text.vi[-1] == ".", name
    if name in FACTS and not issubclass(FACTS[name], Heartbeat):
        assert vars(FACTS[name])["__doc__"] not in (None, Fact.__doc__)


def test_every_meaning_belongs_to_a_fact_a_field_or_a_value() -> None:
    tables = meanings.load()
    assert set(tables["topics"]) == set(TOPICS)
    heartbeats = {name for name, kind in FACTS.items() if issubclass(kind, Heartbeat)}
    assert set(tables["facts"]) == set(NAMES) - heartbeats | {"Heartbeat", "SubmittedComponent"}
    parts: dict[str, type[BaseModel]] = {"Heartbeat": Heartbeat, "SubmittedComponent": SubmittedComponent}
    used = {"stage"}
    for name, table in tables["facts"].items():
        fields = parts[name].model_fields if name in parts else fields_of(name)
        assert {field for field, about in table.items() if isinstance(about, dict)} <= set(fields), name
        for field in fields:
            about = meanings.of_field(name, field)
            if about.listed is not None:
                used.add(about.listed)
                assert set(about.values) <= set(meanings.of_list(about.listed)), f"{name}.{field}"
    assert {field for field in tables["fields"] if not any(field in fields_of(name) for name in NAMES)} == set()
    assert used == set(meanings.lists())


def test_the_meaning_of_a_fact_that_is_not_published_yet_says_so() -> None:
    for name in NAMES:
        about = meanings.of_fact(name)
        assert ("Not published yet" in about.en) == ("Hiện chưa phát" in about.vi) == (name in meanings.TO_COME)
    used_names = {
        node.id
        for file in modules("services")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Name)
    }
    assert set(FACTS) - used_names == meanings.TO_COME


# ---- dossier.lifecycle.v1 and the notices: what the rules emit in random lives --------------------------------------


@cache
def emitted() -> dict[tuple[str, str], set[str]]:
    """(fact, field) -> the values in the facts of random lives of dossiers. The seed is fixed."""
    chance, values = random.Random(12), defaultdict[tuple[str, str], set[str]](set)
    procedures = [*PROCEDURES, rules(LAND), rules(BUSINESS, refusal_status=3), rules(BUSINESS, refusal_status=9)]
    procedures.append(rules(BUSINESS, steps=steps("appraisal", "issuing", "approval", "return")))
    others = [
        "supplement",
        "withdraw",
        "number_found",
        "misshapen_number_found",
        "number_delayed",
        "duplicate_suspected",
        "number_refused",
        "match",
        "mismatch",
    ]
    for _ in range(STORIES):
        centre = Centre(chance.choice(procedures), blanks=50)
        centre.submit(
            caller_role=chance.choice(["counter", "counter", "system"]),
            channel=chance.choice(["direct", "online", "post"]),
            open_for_reception=chance.random() < 0.8,
        )
        for _ in range(14):
            happening = chance.choice(["task"] * 14 + ["opened", "hour", "time", *others])
            happen(centre, happening, chance.randrange(1, 4), chance.choice([None, None, None, None, 0, 1, 2]))
        for event in centre.emitted:
            for field, value in event.fact.model_dump(mode="json").items():
                for one in value if isinstance(value, list) else [value]:
                    if one is not None:
                        values[type(event.fact).__name__, field].add(str(one))
    return values


WITH_VALUES = [
    (name, field)
    for name, kind in sorted(FACTS.items())
    if issubclass(kind, LifecycleFact) and name not in meanings.TO_COME
    for field in kind.model_fields
    if meanings.of_field(name, field).listed is not None
]
NOT_VARIED = {("ResultSigned", "signed_as"), ("ResultSigned", "signature")}


@pytest.mark.parametrize(("name", "field"), sorted(set(WITH_VALUES) - NOT_VARIED))
def test_the_documented_values_are_those_that_the_rules_emit(name: str, field: str) -> None:
    assert emitted()[name, field] == documented(name, field)


def test_the_documented_capacities_and_kinds_of_signature_are_those_of_the_rules() -> None:
    assert documented("ResultSigned", "signed_as") == set(get_args(Procedure.model_fields["signed_as"].annotation))
    signatures = {
        constant
        for file in modules("services/workflow/lifecycle")
        for constant in _constants_of_tuples_with("digital", ast.parse(file.read_text("utf-8")))
    }
    assert documented("ResultSigned", "signature") == signatures


def _constants_of_tuples_with(value: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple):
            constants = [item.value for item in node.elts if isinstance(item, ast.Constant)]
            if value in constants:
                yield from (str(constant) for constant in constants)


def test_the_documented_states_and_statuses_are_those_of_a_dossier() -> None:
    assert set(meanings.of_list("state")) == set(STATES) == documented(meanings.STATE_NAME, "state")
    whole = {str(status) for status in range(1, 11)}
    assert set(meanings.of_list("national_status")) == documented(meanings.STATE_NAME, "national_status") == whole
    assert documented(NoticeWanted.__name__, "national_status") == whole


def test_the_documented_outcomes_and_stages_are_known_to_the_rules() -> None:
    codes = {outcome.code for outcomes in OUTCOMES.values() for outcome in outcomes}
    assert set(meanings.of_list("outcome")) <= codes
    assert set(meanings.of_list("stage")) == set(STAGES) - {"relay", "notify"}


def test_the_documented_notices_are_those_that_the_rules_want() -> None:
    kinds = {*decision_builder.NOTICES.values(), *decision_builder.OTHER_NOTICES}
    causes = {*decision_builder.NOTICES, *decision_builder.OTHER_NOTICES.values()}
    for name in ("NoticeWanted", "NoticeSent", "NoticeFailed"):
        assert documented(name, "kind") == kinds
    assert documented(NoticeWanted.__name__, "cause") == causes
    assert emitted()[NoticeWanted.__name__, "kind"] <= kinds
    assert {name for name, kind in FACTS.items() if kind.topic == LIFECYCLE} >= causes


# ---- the internal topics ----------------------------------------------------------------------------------------


def literals(model: type[BaseModel], field: str) -> set[str]:
    return set(get_args(model.model_fields[field].annotation))


def test_the_documented_values_of_a_submission_are_those_that_intake_accepts() -> None:
    name = DossierSubmitted.__name__
    assert (
        documented(name, "channel") == documented("DossierRecorded", "channel") == literals(form.Submission, "channel")
    )
    assert documented(name, "assisted_by_kind") == literals(form.AssistedBy, "kind")
    assert documented(name, "identity_method") == literals(form.Identity, "method")
    assert documented(SubmittedComponent.__name__, "kind") == literals(form.Component, "kind")
    [roles] = [roles for method, path, roles, _ in access.routes_of("intake") if (method, path) == FILING]
    assert documented(name, "caller_role") == set(roles)


def test_the_documented_groups_are_those_of_the_procedures() -> None:
    for name in ("IdNumberWanted", "IdCheckWanted"):
        assert documented(name, "procedure_group") == set(GROUPS)


def test_the_documented_answers_of_the_registry_are_those_that_idlookup_publishes() -> None:
    request: Any = type("Request", (), {"request_key": UUID(int=0), "kind": "verify"})()
    facts = [
        registry_rules.result_of(request, registry_rules.NextState(state), None, ())
        for state in FINAL["verify"].values()
    ]
    assert {fact.answer for fact in facts if isinstance(fact, IdCheckAnswered)} == documented(
        "IdCheckAnswered", "answer"
    )
    born = {"birth_date": "2001-01-01", "gender": "nam"}
    odd = ("1", "12345678901x", "001399000001", "001099000001", "001101000001")
    warnings = {warning for number in odd for warning in numbers.warnings(number, born)}
    assert warnings | {numbers.NOT_COMPARED, numbers.SAME_PERSON} == documented("IdNumberFound", "warnings")


def test_the_documented_channels_and_failures_are_those_of_notify() -> None:
    channels = {*notify_rules.SENDABLE, notify_rules.CALL_LIST}
    assert documented("NoticeSent", "channel") == channels
    assert documented("NoticeFailed", "channel") == set(notify_rules.SENDABLE)
    assert documented("NoticeFailed", "next_channel") == channels - {notify_rules.SENDABLE[0]}
    reasons = {
        reason
        for file in modules("services/notify")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("SendResult") and len(node.args) == 2
        for reason in _texts_of(node.args[1])
    }
    assert reasons == documented(NoticeFailed.__name__, "reason")


def _texts_of(node: ast.AST) -> Iterator[str]:
    """The text of a constant; of an f-string its beginning and an ellipsis."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        yield f"{node.values[0].value}…"


def test_the_state_is_documented_on_its_topic() -> None:
    assert meanings.names_on(STATE) == [meanings.STATE_NAME]
