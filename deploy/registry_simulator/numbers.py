"""Personal numbers: 3 digits province, 1 century and sex, 2 year of birth, 6 random (Circular 59/2021/TT-BCA)."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

PROVINCE = "025"
"""The province of a request without one."""
FEMALE = {"female", "f", "nữ", "nu"}
FIRST_YEAR, LAST_YEAR = 1900, 2399


def year_of(birth_date: Any) -> int | None:
    """Return the year of an ISO date (also YYYY or YYYY-MM); None when it is missing, invalid or out of range."""
    text = birth_date if isinstance(birth_date, str) else ""
    year = int(text[:4]) if text[:4].isascii() and text[:4].isdigit() and len(text[:4]) == 4 else 0
    return year if FIRST_YEAR <= year <= LAST_YEAR else None


def person_in(subject: dict[str, Any]) -> dict[str, Any]:
    """Return the person who gets the number: the child of a whole birth registration, otherwise the subject itself."""
    child = subject.get("child")
    return child if isinstance(child, dict) else subject


def rejection_reason(person: dict[str, Any]) -> str | None:
    """Return why no number can be issued (blank name, invalid or unsupported date of birth), or None."""
    if "full_name" in person and not str(person["full_name"] or "").strip():
        return "full-name-missing"
    if "birth_date" in person:
        try:
            date.fromisoformat(str(person["birth_date"]))
        except ValueError:
            return "birth-date-invalid"
        if year_of(person["birth_date"]) is None:
            return "birth-date-out-of-range"
    return None


def first_digits(person: dict[str, Any]) -> str:
    """Return the first six digits. Missing fields default to province 025, male, 2025."""
    year = year_of(person.get("birth_date")) or 2025
    province = str(person.get("province", ""))
    sex = str(person.get("sex", person.get("gender", ""))).strip().lower()
    century = (year - FIRST_YEAR) // 100 * 2 + (sex in FEMALE)
    return f"{province if _are_digits(province, 3) else PROVINCE}{century}{year % 100:02d}"


def number_for(prefix: str, seed: int, key: str, taken: set[str]) -> str:
    """Return a number that is not in `taken`. The same seed and key give the same number, except after a collision."""
    probe = 0
    while True:
        digest = hashlib.blake2b(f"{seed}:{key}:{probe}".encode(), digest_size=8).digest()
        number = f"{prefix}{int.from_bytes(digest) % 1_000_000:06d}"
        # Numbers that end in 00 are reserved: `is_known` treats them as unknown persons.
        if number not in taken and not number.endswith("00"):
            return number
        probe += 1


def is_known(personal_id: str, birth_date: Any, sex: Any = None) -> bool:
    """Return whether the registry knows this person: 12 digits that match the birth date's century and year and,
    when given, the sex. Numbers that end in 00 are unknown.
    """
    if not _are_digits(personal_id, 12) or personal_id.endswith("00"):
        return False
    year = year_of(birth_date)
    if year is not None and (int(personal_id[3]) // 2, int(personal_id[4:6])) != divmod(year - FIRST_YEAR, 100):
        return False
    return not isinstance(sex, str) or int(personal_id[3]) % 2 == (sex.strip().lower() in FEMALE)


def _are_digits(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isdigit()
