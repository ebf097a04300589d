"""The procedures that come with hoso are complete, distinct and usable."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import date
from itertools import combinations
from typing import Any

import pytest
from pydantic import ValidationError

from services.workflow.procedures import GROUPS, Fee, Procedure, shipped

PROCEDURES = list(shipped().values())
each = pytest.mark.parametrize("procedure", PROCEDURES, ids=lambda procedure: procedure.code)


def changed(**new: Any) -> dict[str, Any]:
    return {**shipped()["1.001193"].model_dump(mode="json"), **new}


def test_the_procedures_that_a_commune_needs_are_shipped() -> None:
    assert len(PROCEDURES) >= 20
    assert {"1.001193", "1.000656", "1.000894", "2.000815", "2.000884", "1.001776", "1.001612"} <= set(shipped())


def test_groups_are_few_enough_for_a_metrics_label() -> None:
    assert len({procedure.group for procedure in PROCEDURES}) <= 15


@pytest.mark.parametrize(
    "part",
    [
        lambda procedure: procedure.names.vi,
        lambda procedure: procedure.names.en,
        lambda procedure: {**procedure.subject_schema, "title": None},
        lambda procedure: set(procedure.subject_schema["properties"]),
        lambda procedure: {component.code for component in procedure.components},
        lambda procedure: procedure.example["subject"],
        lambda procedure: procedure.example["applicant"]["full_name"],
    ],
)
def test_no_two_procedures_are_copies(part: Callable[[Procedure], Any]) -> None:
    for one, other in combinations(PROCEDURES, 2):
        assert part(one) != part(other), (one.code, other.code)


@each
def test_a_procedure_survives_json(procedure: Procedure) -> None:
    again = Procedure.model_validate(json.loads(procedure.model_dump_json()))
    assert again == procedure
    assert again.same_rules(procedure)


@each
def test_time_limit_and_fee_have_a_source(procedure: Procedure) -> None:
    assert procedure.time.source
    assert procedure.fee.source


@each
def test_the_schema_bounds_every_value_of_the_subject(procedure: Procedure) -> None:
    schemas: list[Any] = [procedure.subject_schema]
    while schemas:
        schema = schemas.pop()
        match schema.get("type"):
            case "object":
                assert schema["additionalProperties"] is False
                assert set(schema["required"]) <= set(schema["properties"])
                schemas += schema["properties"].values()
            case "array":
                assert schema["maxItems"] <= 50
                schemas.append(schema["items"])
            case "string":
                assert "maxLength" in schema or "enum" in schema or schema["format"] == "date"
            case "number" | "integer":
                assert "minimum" in schema
                assert "maximum" in schema
            case kind:
                assert kind == "boolean"


@each
def test_the_example_has_only_known_components_of_allowed_kinds(procedure: Procedure) -> None:
    rules = {component.code: component for component in procedure.components}
    for given in procedure.example["components"]:
        assert given["kind"] in rules[given["code"]].kinds


@each
def test_example_persons_are_synthetic(procedure: Procedure) -> None:
    """No province has the prefix 000, so no living person has such a number."""
    text = json.dumps(procedure.example, ensure_ascii=False)
    assert procedure.example["receiving_agency"] == "H44.XXX"
    assert procedure.example["applicant"]["personal_id"].startswith("000")
    for part in text.split('"'):
        assert not (len(part) == 12 and part.isdigit()) or part.startswith("000")


@each
def test_the_example_is_valid_from_the_first_week_of_the_demo(procedure: Procedure) -> None:
    births = [procedure.example["applicant"]["birth_date"]]
    people = [part for part in procedure.example["subject"].values() if isinstance(part, dict)]
    births += [person["birth_date"] for person in people if "birth_date" in person]
    assert all(date.fromisoformat(day) <= date(2025, 6, 30) for day in births)
    assert procedure.valid_from <= date(2025, 8, 25)


@each
def test_the_steps_never_take_longer_than_the_legal_time(procedure: Procedure) -> None:
    hours_a_day = 7.5
    total = sum(step.working_hours for step in procedure.steps)
    assert total <= hours_a_day * max(procedure.time.working_days, 1)


@each
def test_a_procedure_of_several_steps_is_signed_and_issued(procedure: Procedure) -> None:
    if not procedure.same_visit:
        assert {"approval", "issuing"} <= {step.stage for step in procedure.steps}


def test_the_shipped_procedures_include_every_kind_that_the_demo_shows() -> None:
    by_code = shipped()
    assert by_code["1.001193"].id_number
    assert by_code["1.001193"].identity_check == "beside"
    assert not by_code["1.001193"].same_visit
    assert all(by_code[code].same_visit for code in ("2.000815", "2.000884", "2.000908", "2.000635"))
    assert all(by_code[code].intake_mode == "record_only" for code in ("1.001612", "1.013978"))
    assert "phôi" in (by_code["1.013978"].record_only_reason or "")
    assert by_code["1.013978"].blank == "land_certificate"
    assert by_code["1.013978"].financial_obligation
    assert sum(procedure.intake_mode == "open" for procedure in PROCEDURES) >= 18
    assert any(procedure.group == "land" and procedure.intake_mode == "open" for procedure in PROCEDURES)


@pytest.mark.parametrize(
    ("copies", "pages", "amount"),
    [(1, 1, 2_000), (1, 2, 4_000), (1, 3, 5_000), (5, 3, 25_000), (1, 300, 200_000), (None, None, 2_000)],
)
def test_certified_copies_have_the_fee_of_the_circular(copies: int | None, pages: int | None, amount: int) -> None:
    assert shipped()["2.000815"].fee.amount(copies, pages) == amount


def test_a_fee_may_count_the_case_and_the_copies() -> None:
    assert Fee(per_case=10_000).amount(3, 9) == 10_000
    assert shipped()["2.000635"].fee.amount(3, None) == 24_000


def schema_with(**keywords: Any) -> dict[str, Any]:
    schema = copy.deepcopy(shipped()["1.001193"].subject_schema)
    schema["properties"]["declarant_relation"] |= keywords
    return schema


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (changed(intake_mode="record_only"), "record_only needs a reason"),
        (changed(subject_schema={"type": "thing"}), "no JSON Schema"),
        (changed(subject_schema=schema_with(pattern="(")), "regex"),
        (changed(subject_schema={**schema_with(), "$ref": "https://example.org/person"}), "only to itself"),
        (changed(example={"procedure_code": "1.000656"}), "another procedure"),
        (changed(example={"procedure_code": "1.001193", "subject": {}}), "fails its schema"),
        (changed(components=changed()["components"] + changed()["components"][:1]), "only once"),
        (changed(valid_to="2025-01-01"), "before valid_from"),
        (changed(steps=changed()["steps"][:-1]), "last step"),
        (changed(same_visit=True), "no steps"),
        (changed(steps=changed()["steps"][:2] + changed()["steps"][3:], blank="paper"), "issuing"),
    ],
)
def test_an_invalid_procedure_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Procedure.model_validate(wrong)


def test_opening_a_procedure_changes_no_rule() -> None:
    closed = shipped()["1.001612"]
    opened = closed.model_copy(update={"intake_mode": "open", "record_only_reason": None, "version": 7})
    assert closed.same_rules(opened)
    assert not closed.same_rules(opened.model_copy(update={"blank": None}))


def test_the_groups_are_few_and_every_shipped_procedure_has_one() -> None:
    assert {procedure.group for procedure in shipped().values()} == set(GROUPS)
    assert len(GROUPS) <= 15
