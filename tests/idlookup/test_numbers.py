"""The form of a number, and what is shown of it."""

from __future__ import annotations

from typing import Any

import pytest

from services.idlookup.numbers import mask, person_in, warnings

GIRL = {"birth_date": "2026-01-31", "gender": "female"}


@pytest.mark.parametrize(
    ("number", "person", "expected"),
    [
        ("025326000123", GIRL, ()),
        ("999326000123", GIRL, ()),
        ("025226000123", GIRL, ("sex",)),
        ("025325000123", GIRL, ("year",)),
        ("025126000123", GIRL, ("year",)),
        ("025096000123", {"birth_date": "1996-04-12", "gender": "Nam"}, ()),
        ("025096000123", {"birth_date": "1996", "sex": "nữ"}, ("sex",)),
        ("025325000123", {}, ()),
        ("02532600012", GIRL, ("length",)),
        ("02532600012x", GIRL, ("not-digits",)),
        ("", GIRL, ("length", "not-digits")),
        ("٠٢٥٣٢٦٠٠٠١٢٣", GIRL, ("not-digits",)),
    ],
)
def test_what_does_not_fit_is_a_warning(number: str, person: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert warnings(number, person) == expected


def test_a_birth_registration_is_about_the_child() -> None:
    assert person_in({"child": GIRL, "mother": {"birth_date": "1996-04-12"}}) == GIRL
    assert person_in(GIRL) == GIRL
    assert person_in({**GIRL, "child": "?"}) == {**GIRL, "child": "?"}


def test_only_the_last_three_digits_of_a_number_are_shown() -> None:
    assert mask("025326000123") == "*********123"
    assert mask("12") == "12"
