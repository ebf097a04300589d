"""A commune's week, made from a seed: who comes when, for which procedure, by which channel. Pure.

Chí Tiên, Monday 25 to Friday 29 August 2025: about 82 dossiers per working day. The mix of procedures, the hours, the
channels and the staff are those of a published or a plausible centre. Wednesday has Tuesday's arrivals, so that a slow
Wednesday can be compared with a healthy Tuesday. A real Monday brings a third more; this one has Tuesday's arrivals
too, so that Tuesday and Wednesday begin with equal queues.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any

from shared.clock import VIETNAM

DAYS = 5
MONDAY, TUESDAY, WEDNESDAY = 0, 1, 2
ALIKE = (MONDAY, TUESDAY, WEDNESDAY)
"""Days with the same arrivals, each with other people."""

MIX = {
    "2.000815": 36.0,  # certified copies
    "2.000884": 6.0,  # certified signatures
    "2.001035": 3.0,  # certified transactions
    "2.000635": 8.0,  # register extracts
    "2.000908": 1.0,  # copy from the original register
    "1.004873": 3.0,  # marital status
    "1.001193": 1.2,  # births
    "1.000656": 0.5,  # deaths
    "1.000894": 0.5,  # marriages
    "1.004859": 1.0,  # civil-status changes
    "1.004837": 0.2,  # guardianship
    "1.001022": 0.2,  # recognition
    "1.004884": 0.1,  # re-registration of birth
    "1.001776": 4.5,  # social allowance
    "1.001731": 1.5,  # funeral support
    "1.001612": 3.0,  # household business: recorded only, its forms are missing
    "HOSO.LAND-CHANGE": 9.5,  # land-register changes
    "1.013978": 0.5,  # first land certificate: recorded only, its blanks are missing
    "1.013225": 0.5,  # house construction permit
    "1.011607": 2.0,  # poor households
}
"""Procedure -> dossiers per working day."""

CHANNELS = (("assisted", 0.90), ("direct", 0.05), ("online", 0.04), ("post", 0.01))

RHYTHM = (
    (time(7, 30), time(8, 0), 0.07),
    (time(8, 0), time(10, 0), 0.45),
    (time(10, 0), time(11, 30), 0.14),
    (time(13, 30), time(15, 0), 0.22),
    (time(15, 0), time(17, 0), 0.12),
)
"""(from, to, share of the day's arrivals)"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One dossier to file. `channel`: assisted (an officer files online for the citizen), direct, online or post."""

    at: datetime
    procedure_code: str
    channel: str
    commune: int
    seed: int
    """The same seed makes the same person."""


@dataclass(frozen=True, slots=True)
class Week:
    """Five working days; `number` counts them from 0."""

    monday: date = date(2025, 8, 25)

    def day(self, number: int) -> tuple[datetime, datetime]:
        """From midnight to midnight."""
        begin = datetime.combine(self.monday + timedelta(days=number), time(0), VIETNAM)
        return begin, begin + timedelta(days=1)

    @property
    def begins_at(self) -> datetime:
        """A quarter of an hour before the office opens."""
        return datetime.combine(self.monday, time(7, 15), VIETNAM)

    @property
    def ends_at(self) -> datetime:
        return datetime.combine(self.monday + timedelta(days=DAYS - 1), time(17, 0), VIETNAM)

    @classmethod
    def after(cls, earliest: datetime) -> Week:
        """The first week without a public holiday that begins at `earliest` or later."""
        local = earliest.astimezone(VIETNAM)
        monday = local.date() - timedelta(days=local.weekday())
        while cls(monday).begins_at < local or _has_holiday(monday):
            monday += timedelta(days=7)
        return cls(monday)


def _has_holiday(monday: date) -> bool:
    from holidays.countries.vietnam import Vietnam  # slow to load, and needed only with --now

    make: Any = Vietnam
    off = make(years=(monday.year, monday.year + 1))
    return any(monday + timedelta(days=number) in off for number in range(DAYS))


def arrivals(seed: int, communes: int = 1, week: Week | None = None) -> list[Arrival]:
    """All arrivals of the week in order of time."""
    week_arrivals: list[Arrival] = []
    for commune in range(communes):
        chance = random.Random(f"{seed}/{commune}")
        owed = dict.fromkeys(MIX, 0.5)
        for day in (TUESDAY, *(day for day in range(DAYS) if day not in ALIKE)):
            todays = list(_day(chance, week or Week(), day, commune, owed))
            for other in ALIKE if day == TUESDAY else (day,):
                moved = timedelta(days=other - day)
                week_arrivals += [
                    replace(one, at=one.at + moved, seed=one.seed + (other - day) * 10_000) for one in todays
                ]
    return sorted(week_arrivals, key=lambda arrival: (arrival.at, arrival.seed))


def _day(chance: random.Random, week: Week, day: int, commune: int, owed: dict[str, float]) -> list[Arrival]:
    """One day's arrivals. Fractions of a dossier are carried over to the next day in `owed`."""
    codes: list[str] = []
    for code, per_day in MIX.items():
        owed[code] += per_day
        count = int(owed[code])
        owed[code] -= count
        if day == TUESDAY and code == "1.001193":
            # Births need the registry, so the compared days must have some.
            count = max(count, 2)
        codes += [code] * count
    chance.shuffle(codes)
    days_arrivals = []
    for number, code in enumerate(codes):
        at = datetime.combine(week.monday + timedelta(days=day), _time(chance), VIETNAM)
        person = day * 10_000 + commune * 1_000_000 + number
        days_arrivals.append(Arrival(at, code, _channel(chance, code), commune, person))
    return days_arrivals


def _time(chance: random.Random) -> time:
    begin, end, _ = chance.choices(RHYTHM, weights=[row[2] for row in RHYTHM])[0]
    first = begin.hour * 3600 + begin.minute * 60
    last = end.hour * 3600 + end.minute * 60
    second = int(chance.uniform(first, last - 60))
    return time(second // 3600, second % 3600 // 60, second % 60)


def _channel(chance: random.Random, code: str) -> str:
    if code == "1.001193":
        return "assisted"
    return chance.choices([name for name, _ in CHANNELS], weights=[weight for _, weight in CHANNELS])[0]
