"""Administrative procedures as data: what a citizen brings, who does what, how long it may take.

Each `<code>.toml` beside this file is one procedure as first published; `PUT /v1/procedures/{code}` makes later versions.
A dossier keeps the version in force when it was received. Figures the law leaves to the province (marks C and D in the
sources) are fields here, never constants in code.
"""

from __future__ import annotations

import tomllib
from datetime import date, time
from functools import cache
from importlib import resources
from typing import Any, Literal

import jsonschema
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Stage = Literal[
    "reception",
    "identity_check",
    "appraisal",
    "consultation",
    "financial_obligation",
    "id_number",
    "approval",
    "issuing",
    "return",
]
Role = Literal["counter", "specialist", "signatory", "records_clerk", "centre_director"]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Names(Part):
    vi: str
    en: str


class TimeLimit(Part):
    """The statutory time. `working_days` 0 means the same day."""

    working_days: int = Field(ge=0, le=365)
    late_cutoff: time | None = time(15, 0)
    """Received after this hour counts as received the next working day (Civil Status Law art. 5(3)); none: never."""
    late_cutoff_shifts_count: bool = True
    """Whether the cut-off also moves the count of a procedure of several days (unsettled: mark D)."""
    source: str = ""
    certainty: Literal["A", "B", "C", "D"] = "C"


class Fee(Part):
    """Đồng taken at the counter. A fee is not a stage; a financial obligation (tax, land payment) is."""

    per_case: int = 0
    per_copy: int = 0
    per_page: int = 0
    per_page_from_third: int | None = None
    max_per_copy: int | None = None
    source: str = ""

    def amount(self, copies: int | None, pages: int | None) -> int:
        """Đồng for `copies` copies of `pages` pages each."""
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
    code: str
    names: Names
    required: bool = True
    kinds: tuple[Literal["original", "copy", "electronic"], ...] = ("original", "copy", "electronic")


class Step(Part):
    """One officer's step after reception, in order. `working_hours` is the step's own target, never the legal one."""

    stage: Stage
    role: Role
    working_hours: float = Field(gt=0)


class Procedure(Part):
    """The whole rule set of one version of one procedure."""

    code: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.\-]{2,40}$")
    version: int = Field(default=1, ge=1)
    names: Names
    group: str = Field(pattern=r"^[a-z_]{3,30}$")
    """One of at most 15 procedure groups: a metrics label."""
    valid_from: date = date(2025, 7, 1)
    valid_to: date | None = None
    time: TimeLimit
    fee: Fee = Fee()
    same_visit: bool = False
    """Received, signed and returned on one screen: one task `return`, role `counter`."""
    identity_check: Literal["none", "beside", "required"] = "none"
    """`beside`: asked of the registry in parallel, blocks nothing; `required`: approval waits for its answer."""
    id_number: bool = False
    """A personal identification number is asked for at reception, beside the other steps (births)."""
    number_hold_until: time = time(16, 30)
    """Office hour of the due day until which a missing number holds the return; then the signatory decides."""
    blank: str | None = None
    """The kind of numbered blank (phôi) that `issuing` uses up; none: no stock needed."""
    financial_obligation: bool = False
    """A tax or land payment (national status 6) is awaited after appraisal."""
    supplement_allowed: int = 1
    refusal_status: Literal[3, 8, 9] = 8
    """National status of a refusal after appraisal (unsettled: mark D)."""
    four_eyes: bool = False
    """Who appraised may not sign."""
    signed_as: str = "TM."
    """Default capacity of the signature on the result (TM., KT., TL., TUQ.)."""
    components: tuple[ComponentRule, ...] = ()
    subject_schema: dict[str, Any]
    """JSON Schema 2020-12 of the submission's `subject`."""
    steps: tuple[Step, ...] = ()
    """Empty when `same_visit`; else ends with the stage `return`."""
    intake_mode: Literal["open", "record_only"] = "open"
    """Outside the version: `record_only` records submissions and receives none until the procedure is opened."""
    record_only_reason: str | None = None
    example: dict[str, Any]
    """A body that `POST /v1/dossiers` accepts as it is."""

    @field_validator("subject_schema")
    @classmethod
    def _schema_is_a_schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        jsonschema.Draft202012Validator.check_schema(value)
        return value

    @model_validator(mode="after")
    def _steps_make_sense(self) -> Procedure:
        if self.same_visit:
            if self.steps:
                raise ValueError("a same-visit procedure has no steps of its own")
        elif not self.steps or self.steps[-1].stage != "return":
            raise ValueError("the last step must be `return`")
        if len({step.stage for step in self.steps}) != len(self.steps):
            raise ValueError("a stage may stand only once among the steps")
        if self.blank and "issuing" not in {step.stage for step in self.steps}:
            raise ValueError("a procedure that uses blanks needs the step `issuing`")
        if self.intake_mode == "record_only" and not self.record_only_reason:
            raise ValueError("record_only needs a reason that is shown to the citizen and the province")
        return self

    def same_rules(self, other: Procedure) -> bool:
        """Whether both say the same but for version and intake mode."""
        outside = {"version", "intake_mode", "record_only_reason"}
        return self.model_dump(exclude=outside) == other.model_dump(exclude=outside)


@cache
def shipped() -> dict[str, Procedure]:
    """The procedures that come with hoso, by code. Raises ValueError when a file is wrong."""
    found = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            procedure = Procedure.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
            found[procedure.code] = procedure
    return found
