"""The shape of a personal identification number. What looks odd is a warning, never a refusal: prefixes change."""

from __future__ import annotations

from typing import Any

FIRST_CENTURY = 19
SEXES = {"male": 0, "nam": 0, "female": 1, "nữ": 1}


def mask(number: str) -> str:
    """The last three digits only: the first six reveal province, sex and year of birth."""
    return "*" * max(len(number) - 3, 0) + number[-3:]


def person_in(subject: dict[str, Any]) -> dict[str, Any]:
    """Whom the number is for: the child of a birth registration sent as a whole, or else the subject itself."""
    child = subject.get("child")
    return child if isinstance(child, dict) else subject


def warnings(number: str, person: dict[str, Any]) -> tuple[str, ...]:
    """What does not fit: `length`, `not-digits`, `year`, `sex` (Circular 59/2021/TT-BCA; prefixes are not judged).

    `person` may have birth_date (ISO) and gender or sex; what it does not have is not compared.
    """
    found = [] if len(number) == 12 else ["length"]
    if not (number.isascii() and number.isdigit()):
        return (*found, "not-digits")
    if found:
        return tuple(found)
    century, sex = divmod(int(number[3]), 2)
    born = str(person.get("birth_date") or "")[:4]
    if len(born) == 4 and born.isascii() and born.isdigit() and f"{FIRST_CENTURY + century}{number[4:6]}" != born:
        found.append("year")
    told = SEXES.get(str(person.get("gender") or person.get("sex") or "").strip().lower())
    if told is not None and told != sex:
        found.append("sex")
    return tuple(found)
