"""Personal numbers: 3 digits province, 1 century and sex, 2 year of birth, 6 others (Circular 59/2021/TT-BCA)."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

PROVINCE = "025"
"""Used when the request names none."""
FEMALE = {"female", "f", "nữ", "nu"}
FIRST_YEAR, LAST_YEAR = 1900, 2399


def year_of(birth_date: Any) -> int | None:
    """The year of an ISO date (or of its beginning, YYYY or YYYY-MM); None when it cannot be read or told."""
    text = birth_date if isinstance(birth_date, str) else ""
    year = int(text[:4]) if text[:4].isascii() and text[:4].isdigit() and len(text[:4]) == 4 else 0
    return year if FIRST_YEAR <= year <= LAST_YEAR else None


def person_in(subject: dict[str, Any]) -> dict[str, Any]:
    """Whom the number is for: the child of a birth registration sent as a whole, or else the subject itself."""
    child = subject.get("child")
    return child if isinstance(child, dict) else subject


def why_refused(person: dict[str, Any]) -> str | None:
    """Why no number can be given: a blank name, or a date of birth no calendar has or no number can express."""
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


def head_of(person: dict[str, Any]) -> str:
    """The first six digits. What is not told: province 025, male, 2025."""
    year = year_of(person.get("birth_date")) or 2025
    province = str(person.get("province", ""))
    sex = str(person.get("sex", person.get("gender", ""))).strip().lower()
    century = (year - FIRST_YEAR) // 100 * 2 + (sex in FEMALE)
    return f"{province if _are_digits(province, 3) else PROVINCE}{century}{year % 100:02d}"


def number_for(head: str, seed: int, key: str, taken: set[str]) -> str:
    """A number nobody has. The same seed and key give the same one again, after a restart too, but for collisions."""
    probe = 0
    while True:
        mixed = hashlib.blake2b(f"{seed}:{key}:{probe}".encode(), digest_size=8).digest()
        number = f"{head}{int.from_bytes(mixed) % 1_000_000:06d}"
        # Numbers that end in 00 are those that `agrees` knows nothing of.
        if number not in taken and not number.endswith("00"):
            return number
        probe += 1


def agrees(personal_id: str, birth_date: Any, sex: Any = None) -> bool:
    """Whether the registry knows this person: any 12 digits whose century and year are those of the date of birth,
    whose sex digit is that of `sex` where told, and which do not end in 00.
    """
    if not _are_digits(personal_id, 12) or personal_id.endswith("00"):
        return False
    year = year_of(birth_date)
    if year is not None and (int(personal_id[3]) // 2, int(personal_id[4:6])) != divmod(year - FIRST_YEAR, 100):
        return False
    return not isinstance(sex, str) or int(personal_id[3]) % 2 == (sex.strip().lower() in FEMALE)


def _are_digits(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isdigit()
