"""Administrative procedures as data: what a citizen submits, who does what, how long it may take.

Each `<code>.toml` in this folder is one procedure as first published; `PUT /v1/procedures/{code}` makes later versions.
A dossier keeps the version that was in force when it was received. Figures that the law leaves to the province are
fields here, never constants in code. Each has its certainty: A read in the law, B in secondary material, C plausible,
D unknown.

Two keywords in `subject_schema` are hoso's own (JSON Schema lets validators ignore them). `"x-date": "birth"` or
`"past"` on a property of `format: date` refuses a day in the future (and, for `birth`, more than 130 years ago).
`"x-order": [[earlier, later], …]` on an object names pairs of dates; the first must not be after the second.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import date
from datetime import time as time_of_day
from functools import cache
from importlib import resources
from typing import Any, Literal

import jsonschema
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.refusals import broken_rule

Stage = Literal["appraisal", "consultation", "approval", "issuing", "return"]
"""The stages that are steps of officers after reception."""
Certainty = Literal["A", "B", "C", "D"]
GROUPS = ("birth", "certification", "civil_status", "construction", "extract", "household_business", "land", "linked",
          "social")  # fmt: skip
"""The procedure groups. They are a metrics label, so the list is fixed and has at most 15."""
MAX_MONEY = 1_000_000_000
"""The upper limit of one item of a fee, in đồng."""
Role = Literal["counter", "specialist", "signatory", "records_clerk", "centre_director"]
Capacity = Literal["TM.", "KT.", "TL.", "TUQ."]
"""How a signatory signs: on behalf of the authority (TM.), for its head (KT.), by order (TL.), by delegation (TUQ.)."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Names(Part):
    vi: str = Field(min_length=3, max_length=300)
    en: str = Field(min_length=3, max_length=300)


class TimeLimit(Part):
    """The statutory time limit. `working_days` 0 means the same day."""

    working_days: int = Field(ge=0, le=365)
    late_cutoff: time_of_day | None = time_of_day(15, 0)
    """A dossier received after this hour counts as received the next working day (Civil Status Law art. 5(3)).
    None: there is no such hour."""
    late_cutoff_shifts_count: bool = True
    """Whether the hour also moves a limit of several days (unsettled: mark D). It always moves a same-day limit."""
    source: str = ""
    certainty: Certainty = "C"


class Fee(Part):
    """The fee paid at the counter, in đồng. A fee is not a stage; a financial obligation (tax, land payment) is one."""

    per_case: int = Field(default=0, ge=0, le=MAX_MONEY)
    per_copy: int = Field(default=0, ge=0, le=MAX_MONEY)
    per_page: int = Field(default=0, ge=0, le=MAX_MONEY)
    per_page_from_third: int | None = Field(default=None, ge=0, le=MAX_MONEY)
    max_per_copy: int | None = Field(default=None, ge=0, le=MAX_MONEY)
    source: str = ""
    certainty: Certainty = "C"

    def amount(self, copies: int | None, pages: int | None) -> int:
        """The fee in đồng for `copies` copies of `pages` pages each; None counts as one."""
        copies, pages = copies or 1, pages or 1
        if self.per_page_from_third is None:
            by_page = self.per_page * pages
        else:
            by_page = self.per_page * min(pages, 2) + self.per_page_from_third * max(pages - 2, 0)
        per_copy = self.per_copy + by_page
        if self.max_per_copy is not None:
            per_copy = min(per_copy, self.max_per_copy)
        return self.per_case + per_copy * copies


class ComponentRule(Part):
    code: str = Field(pattern=r"^[a-z0-9][a-z0-9_]{1,59}$")
    names: Names
    required: bool = True
    kinds: tuple[Literal["original", "copy", "electronic"], ...] = ("original", "copy", "electronic")


class Step(Part):
    """One step of an officer after reception. `working_hours` is the step's own target, never the legal limit."""

    stage: Stage
    role: Role
    working_hours: float = Field(gt=0, le=10_000)


class Procedure(Part):
    """All rules of one version of one procedure."""

    code: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.\-]{2,40}$")
    version: int = Field(default=1, ge=1)
    code_certainty: Certainty = "B"
    """How certain it is that this is the national code: B from public code lists, D a local code."""
    names: Names
    group: str = Field(pattern=r"^[a-z_]{3,30}$")
    """One of `GROUPS`. Checked when a procedure is put, not when it is loaded: rows of older releases must load."""
    valid_from: date = date(2025, 7, 1)
    valid_to: date | None = None
    time: TimeLimit
    fee: Fee = Fee()
    same_visit: bool = False
    """Received, signed and returned in one visit: one task of the stage `return`, with the role `counter`."""
    identity_check: Literal["none", "beside", "required"] = "none"
    """`beside`: the registry is asked in parallel and no step waits; `required`: approval waits for the answer."""
    id_number: bool = False
    """Whether a personal identification number is requested at reception, beside the other steps (births)."""
    number_hold_until: time_of_day = time_of_day(16, 30)
    """Office hour of the due day until which a missing number holds the return; then the signatory decides."""
    blank: str | None = None
    """The kind of numbered blank (phôi) of which `issuing` uses up one. None: no blank is needed."""
    financial_obligation: bool = False
    """Whether a tax or land payment (national status 6) is awaited after appraisal."""
    supplement_allowed: int = Field(default=1, ge=0, le=10)
    refusal_status: Literal[3, 8, 9] = 8
    """National status of a refusal after appraisal (unsettled: mark D)."""
    four_eyes: bool = False
    """Whether the officer who appraised the dossier may not sign the result."""
    competent_agency: Names | None = None
    """The deciding agency, if it is not the receiving one."""
    signed_as: Capacity = "TM."
    """Default capacity of the signature on the result."""
    components: tuple[ComponentRule, ...] = ()
    subject_schema: dict[str, Any]
    """JSON Schema 2020-12 of the submission's `subject`."""
    steps: tuple[Step, ...] = ()
    """Empty when `same_visit`; else ends with the stage `return`."""
    intake_mode: Literal["open", "record_only"] = "open"
    """Not part of the version. `record_only`: submissions are recorded, and received once the procedure is opened."""
    record_only_reason: str | None = None
    example: dict[str, Any]
    """A body that `POST /v1/dossiers` accepts as it is."""

    @field_validator("subject_schema")
    @classmethod
    def _schema_is_a_schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            jsonschema.Draft202012Validator.check_schema(value)
        except jsonschema.SchemaError as wrong:
            raise broken_rule(
                f"subject_schema không phải JSON Schema 2020-12: {wrong.message[:200]}",
                f"subject_schema is no JSON Schema 2020-12: {wrong.message[:200]}",
            ) from wrong
        for schema in _objects_in(value):
            if not str(schema.get("$ref", "#")).startswith("#") or "$dynamicRef" in schema:
                raise broken_rule(
                    "subject_schema chỉ được tham chiếu trong chính nó (#/$defs/…).",
                    "subject_schema may refer only to itself (#/$defs/…).",
                )
            if "$ref" in schema and not _has_target(value, str(schema["$ref"])):
                raise broken_rule(
                    "subject_schema tham chiếu đến chỗ không có trong nó.",
                    "subject_schema refers to a place that is not in it.",
                )
        return value

    @model_validator(mode="after")
    def _steps_make_sense(self) -> Procedure:
        if self.same_visit:
            if self.steps:
                raise broken_rule(
                    "Thủ tục trả ngay không có bước riêng.", "A same-visit procedure has no steps of its own."
                )
        elif not self.steps or self.steps[-1].stage != "return":
            raise broken_rule("Bước cuối phải là `return`.", "The last step must be `return`.")
        if len({step.stage for step in self.steps}) != len(self.steps):
            raise broken_rule("Mỗi khâu chỉ được có một lần.", "A stage may be listed only once among the steps.")
        if self.same_visit and self.id_number:
            raise broken_rule("Thủ tục trả ngay không chờ số được.", "A same-visit procedure cannot wait for a number.")
        if self.financial_obligation and "appraisal" not in {step.stage for step in self.steps}:
            raise broken_rule(
                "Nghĩa vụ tài chính cần có bước `appraisal` trước nó.",
                "A financial obligation comes after the step `appraisal`.",
            )
        if self.blank and "issuing" not in {step.stage for step in self.steps}:
            raise broken_rule(
                "Thủ tục dùng phôi cần bước `issuing`.", "A procedure that uses blanks needs the step `issuing`."
            )
        codes = [component.code for component in self.components]
        if len(set(codes)) != len(codes):
            raise broken_rule("Mỗi thành phần chỉ được nêu một lần.", "A component may be listed only once.")
        if self.valid_to is not None and self.valid_to < self.valid_from:
            raise broken_rule("valid_to trước valid_from.", "valid_to is before valid_from.")
        if self.intake_mode == "record_only" and not self.record_only_reason:
            raise broken_rule(
                "record_only cần lý do để người dân và tỉnh biết.",
                "record_only needs a reason that is shown to the citizen and the province.",
            )
        return self

    @model_validator(mode="after")
    def _example_fits(self) -> Procedure:
        if self.example.get("procedure_code") != self.code:
            raise broken_rule("Ví dụ là của thủ tục khác.", "The example is of another procedure.")
        validator = jsonschema.Draft202012Validator(
            self.subject_schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )
        try:
            error = next(validator.iter_errors(self.example.get("subject")), None)
        except Exception as broken:
            # A `$ref` to nothing or to itself would fail intake with every submission.
            raise broken_rule(
                f"Không đi theo được subject_schema: {type(broken).__name__}.",
                f"subject_schema cannot be followed: {type(broken).__name__}.",
            ) from broken
        if error is not None:
            raise broken_rule(
                f"Ví dụ không hợp subject_schema ở {error.json_path}: {error.validator}.",
                f"The example's subject fails its schema at {error.json_path}: {error.validator}.",
            )
        return self

    def same_rules(self, other: Procedure) -> bool:
        """Whether both are equal apart from version and intake mode."""
        outside = {"version", "intake_mode", "record_only_reason"}
        return self.model_dump(exclude=outside) == other.model_dump(exclude=outside)


def _has_target(schema: dict[str, Any], reference: str) -> bool:
    target: Any = schema
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and name.isdecimal() and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, dict) and name in target:
            target = target[name]
        else:
            return False
    return reference == "#" or reference.startswith("#/")


def _objects_in(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a schema, and the schema itself."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


@cache
def shipped() -> dict[str, Procedure]:
    """The procedures that come with hoso, by code. Raises ValueError when a file is invalid."""
    procedures = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            procedure = Procedure.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
            if file.name != f"{procedure.code}.toml":
                raise ValueError(f"{file.name} holds the procedure {procedure.code}")
            procedures[procedure.code] = procedure
    return procedures
