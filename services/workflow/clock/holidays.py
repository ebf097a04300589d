"""The public holidays of Vietnam, year by year, before any correction by the centre.

The years 2024 to 2030 are a table (`holidays.json`), so that a service need not load the `holidays` library; other
years come from the library. `python -m services.workflow.clock.holidays` prints the table, and a test compares it
with the library.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import metadata, resources
from typing import Any

TABLE_YEARS = range(2024, 2031)
FIRST_YEAR, LAST_YEAR = 2000, 2099
"""Between these years the lunar tables for Tết and the Hùng Kings day are reliable."""


@dataclass(frozen=True, slots=True)
class HolidayYear:
    """Days off with their names (Vietnamese, English), and weekend days worked by a government swap."""

    off: dict[date, tuple[str, str]]
    worked: frozenset[date]


def from_library(years: Iterable[int]) -> dict[int, HolidayYear]:
    """The public holidays of these years by the `holidays` library, which is loaded for it."""
    from holidays.countries.vietnam import Vietnam

    wanted = sorted(set(years))
    make: Callable[..., Any] = Vietnam
    vietnamese = make(years=wanted, language="vi", expand=False)
    english = make(years=wanted, language="en_US", expand=False)
    return {
        year: HolidayYear(
            {day: (name, _iso_dates(english[day])) for day, name in sorted(vietnamese.items()) if day.year == year},
            frozenset(day for day in vietnamese.weekend_workdays if day.year == year),
        )
        for year in wanted
    }


def _iso_dates(english: str) -> str:
    """Write dates as 2024-05-04. The library writes 05/04/2024 for 4 May, which is 5 April to Vietnamese readers."""
    return re.sub(r"([0-9]{2})/([0-9]{2})/([0-9]{4})", r"\3-\1-\2", english)


@cache
def holiday_year(year: int) -> HolidayYear:
    """The public holidays of one year. Raises ValueError outside 2000 to 2099."""
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise ValueError(f"no public holidays are known for the year {year}")
    if year in TABLE_YEARS:
        return _table()[year]
    return from_library([year])[year]


@cache
def _table() -> dict[int, HolidayYear]:
    text = resources.files(__package__).joinpath("holidays.json").read_text(encoding="utf-8")
    rows = json.loads(text)
    off = {date.fromisoformat(day): (names[0], names[1]) for day, names in rows["off"].items()}
    worked = [date.fromisoformat(day) for day in rows["worked"]]
    return {
        year: HolidayYear(
            {day: names for day, names in off.items() if day.year == year},
            frozenset(day for day in worked if day.year == year),
        )
        for year in TABLE_YEARS
    }


def table_text() -> str:
    """The text of `holidays.json` by the installed library."""
    years = from_library(TABLE_YEARS).values()
    off = {day.isoformat(): list(names) for year in years for day, names in year.off.items()}
    worked = sorted(day.isoformat() for year in years for day in year.worked)
    source = f"holidays {metadata.version('holidays')} for Python, Vietnam"
    rows = ",\n".join(f"    {json.dumps(day)}: {json.dumps(names, ensure_ascii=False)}" for day, names in off.items())
    return f'{{\n  "source": {json.dumps(source)},\n  "off": {{\n{rows}\n  }},\n  "worked": {json.dumps(worked)}\n}}\n'


if __name__ == "__main__":
    sys.stdout.write(table_text())
