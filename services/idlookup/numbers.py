"""The form of a personal identification number. Defects are warnings and never refusals, because prefixes change."""

from __future__ import annotations

from typing import Any

FIRST_CENTURY = 19
NOT_COMPARED = "not-compared"
"""The warning of a number whose dossier could not be read."""
SAME_PERSON = "same-person"
"""The warning of a number that a person took from a suspected duplicate."""
SEXES = {"male": 0, "nam": 0, "female": 1, "nữ": 1}


def mask(number: str) -> str:
    """Stars and the last three digits: the first six digits reveal province, sex and year of birth."""
    return "*" * max(len(number) - 3, 0) + number[-3:]


def person_in(subject: dict[str, Any]) -> dict[str, Any]:
    """The person who gets the number: the child of a birth registration, otherwise the subject itself."""
    child = subject.get("child")
    return child if isinstance(child, dict) else subject


def warnings(number: str, person: dict[str, Any]) -> tuple[str, ...]:
    """What does not fit: `length`, `not-digits`, `year`, `sex` (Circular 59/2021/TT-BCA; prefixes are not judged).

    `person` may have birth_date (ISO) and gender or sex; a missing field is not compared.
    """
    defects = [] if len(number) == 12 else ["length"]
    if not (number.isascii() and number.isdigit()):
        return (*defects, "not-digits")
    if defects:
        return tuple(defects)
    century, sex = divmod(int(number[3]), 2)
    birth_year = str(person.get("birth_date") or "")[:4]
    is_year = len(birth_year) == 4 and birth_year.isascii() and birth_year.isdigit()
    if is_year and f"{FIRST_CENTURY + century}{number[4:6]}" != birth_year:
        defects.append("year")
    stated_sex = SEXES.get(str(person.get("gender") or person.get("sex") or "").strip().lower())
    if stated_sex is not None and stated_sex != sex:
        defects.append("sex")
    return tuple(defects)
