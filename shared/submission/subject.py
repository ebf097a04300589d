"""Whether the `subject` of a submission fits its procedure's schema, and whether its days are possible.

JSON Schema defines the shape. Two keywords of hoso (see `services/workflow/procedures`) define which days must be in
the past and in which order days must be. Days in a schema that a `$ref` names are checked for shape only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from shared.refusals import Complaint
from shared.submission.form import MAX_COMPLAINTS, complaint, read_date, shown

OLDEST = timedelta(days=round(130 * 365.2425))
DECORATION = frozenset({"title", "description", "$schema", "$comment", "examples", "x-date", "x-order"})


class SubjectRules:
    """A schema compiled for many checks: a copy without decoration accepts quickly, the full one explains errors."""

    __slots__ = ("_full", "_quick", "_schema")

    def __init__(self, schema: Mapping[str, Any]) -> None:
        formats = Draft202012Validator.FORMAT_CHECKER
        self._schema = schema
        self._full = Draft202012Validator(schema, format_checker=formats)
        self._quick = Draft202012Validator(_bare(schema), format_checker=formats)

    def check(self, subject: Mapping[str, Any], today: date) -> list[Complaint]:
        """The complaints about a subject, at most 20."""
        complaints: list[Complaint] = []
        if not self._quick.is_valid(subject):
            for error in islice(self._full.iter_errors(subject), MAX_COMPLAINTS):
                complaints += [row for row in _about_error(error) if row not in complaints]
        for row in islice(_about_days(self._schema, subject, ("subject",), today), MAX_COMPLAINTS):
            if row not in complaints:
                complaints.append(row)
        return complaints[:MAX_COMPLAINTS]


def _bare(schema: Any) -> Any:
    """The schema without the keywords that validate nothing. Names of properties are not keywords and stay."""
    if not isinstance(schema, dict):
        return [_bare(item) for item in schema] if isinstance(schema, list) else schema
    return {
        word: {name: _bare(rule) for name, rule in value.items()}
        if word in ("properties", "$defs", "patternProperties", "dependentSchemas")
        else value
        if word in ("const", "enum", "default")
        else _bare(value)
        for word, value in schema.items()
        if word not in DECORATION
    }


ERRORS = {
    "type": "wrong-type",
    "enum": "not-one-of",
    "const": "not-one-of",
    "minLength": "too-short",
    "maxLength": "too-long",
    "minItems": "too-few",
    "maxItems": "too-many",
    "uniqueItems": "repeated",
    "minimum": "out-of-range",
    "maximum": "out-of-range",
    "exclusiveMinimum": "out-of-range",
    "exclusiveMaximum": "out-of-range",
}


def _about_error(error: ValidationError) -> list[Complaint]:
    path = ("subject", *error.absolute_path)
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    properties = schema.get("properties", {})
    if error.validator == "required" and isinstance(error.instance, dict):
        missing = [name for name in schema.get("required", ()) if name not in error.instance]
        return [complaint(shown((*path, name)), "missing", properties.get(name, {}).get("title")) for name in missing]
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        unknown = {shown((*path, name)) for name in error.instance if name not in properties}
        return [complaint(field, "unknown-field") for field in sorted(unknown)[:5]]
    code = ERRORS.get(str(error.validator), "wrong-form")
    if error.validator == "format" and error.validator_value == "date":
        code = "impossible-date"
    elif schema.get("pattern") == "^[0-9]{12}$" and error.validator in ("pattern", "minLength", "maxLength"):
        code = "wrong-number-shape"
    return [complaint(shown(path), code, schema.get("title"))]


def _about_days(schema: Mapping[str, Any], value: Any, path: tuple[object, ...], today: date) -> Iterator[Complaint]:
    """The complaints about days in a value, by `x-date` and `x-order` of its schema."""
    if schema.get("format") == "date":
        yield from about_day(shown(path), value, schema.get("x-date"), today, schema.get("title"))
    elif isinstance(value, dict):
        for name, rule in schema.get("properties", {}).items():
            if name in value:
                yield from _about_days(rule, value[name], (*path, name), today)
        for first, second in schema.get("x-order", ()):
            earlier, later = read_date(_follow(value, first)), read_date(_follow(value, second))
            if earlier is not None and later is not None and later < earlier:
                yield complaint(shown((*path, *second.split("/"))), "dates-out-of-order")
    elif isinstance(value, list) and isinstance(rule := schema.get("items"), dict):
        for index, item in enumerate(value):
            yield from _about_days(rule, item, (*path, index), today)


def about_day(field: str, text: Any, kind: str | None, today: date, label: str | None = None) -> Iterator[Complaint]:
    """Complaints about one day. `kind`: `birth` (not in the future, at most 130 years ago), `past`, None (any day)."""
    if not isinstance(text, str):
        return
    day = read_date(text)
    if day is None:
        yield complaint(field, "impossible-date", label)
    elif kind is not None and day > today:
        yield complaint(field, "date-in-future", label)
    elif kind == "birth" and day < today - OLDEST:
        yield complaint(field, "date-too-old", label)


def _follow(value: Any, path: str) -> Any:
    for name in path.split("/"):
        value = value.get(name) if isinstance(value, dict) else None
    return value
