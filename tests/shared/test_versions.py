"""Which version of a procedure is in force on a day (docs/decisions/0010)."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

import pytest

from shared.submission.versions import version_in_force


class Row(NamedTuple):
    version: int
    valid_from: date


def row(version: int, valid_from: str) -> Row:
    return Row(version, date.fromisoformat(valid_from))


@pytest.mark.parametrize(
    ("day", "version"), [("2025-06-30", 1), ("2025-07-01", 1), ("2025-08-31", 1), ("2025-09-01", 2), ("2026-01-01", 3)]
)
def test_a_version_published_early_is_in_force_from_its_first_day_on(day: str, version: int) -> None:
    rows = [row(3, "2026-01-01"), row(1, "2025-07-01"), row(2, "2025-09-01")]
    in_force = version_in_force(rows, date.fromisoformat(day))
    assert in_force is not None
    assert in_force.version == version


def test_of_versions_that_have_begun_the_highest_is_in_force_even_if_it_began_first() -> None:
    rows = [row(1, "2025-07-01"), row(2, "2025-08-01"), row(3, "2025-07-15")]
    assert version_in_force(rows, date(2025, 9, 1)) == rows[2]


def test_before_any_version_has_begun_the_first_to_begin_is_in_force_and_of_two_the_higher() -> None:
    rows = [row(1, "2025-10-01"), row(2, "2025-09-01"), row(3, "2025-09-01"), row(4, "2025-12-01")]
    assert version_in_force(rows, date(2025, 8, 1)) == rows[2]


def test_of_no_versions_none_is_in_force() -> None:
    assert version_in_force([], date(2025, 8, 1)) is None
