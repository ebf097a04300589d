"""The shape of a personal identification number. What looks odd is a warning, never a refusal: rules on prefixes change."""

from __future__ import annotations

from typing import Any


def mask(number: str) -> str:
    """The last three digits only: the first six reveal province, sex and year of birth."""
    return "*" * max(len(number) - 3, 0) + number[-3:]


def warnings(number: str, person: dict[str, Any]) -> tuple[str, ...]:
    """What does not fit: `length`, `not-digits`, `year`, `sex`. `person` may have birth_date (ISO) and gender."""
    found = []
    if len(number) != 12:
        found.append("length")
    if not (number.isascii() and number.isdigit()):
        return (*found, "not-digits")
    if len(number) < 6:
        return tuple(found)
    century_and_sex = int(number[3])
    born = str(person.get("birth_date", ""))[:4]
    if born.isdigit() and len(born) == 4:
        century = 19 + century_and_sex // 2
        if f"{century}{number[4:6]}" != born:
            found.append("year")
    sex = {"male": 0, "female": 1}.get(str(person.get("gender", "")))
    if sex is not None and century_and_sex % 2 != sex:
        found.append("sex")
    return tuple(found)
