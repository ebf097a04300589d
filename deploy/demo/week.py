"""A commune's week, seeded: who comes when, with what, by which channel. Pure.

Chí Tiên, Monday 25 to Friday 29 August 2025: about 82 dossiers a working day. Mix, rhythm, channels and staff are
those of a published or plausible centre (mark C). Wednesday's arrivals are Tuesday's, moved by a day, so that a slow
Wednesday can be compared with a healthy Tuesday. A real Monday brings a third more; here it brings what Tuesday brings,
so that Tuesday begins with the very remainder that Wednesday begins with: with Monday's surplus in its queues the
healthy day was the slower one.
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
"""Days with the same arrivals, each by other people."""

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
"""Procedure -> dossiers a working day."""

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
    """Somebody comes. `channel`: assisted (an officer files online for them), direct, online or post."""

    at: datetime
    procedure_code: str
    channel: str
    commune: int
    seed: int
    """Makes the person: the same seed is the same person."""


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
    def after(cls, moment: datetime) -> Week:
        """The first one that begins then or later and has no public holiday."""
        local = moment.astimezone(VIETNAM)
        monday = local.date() - timedelta(days=local.weekday())
        while cls(monday).begins_at < local or _has_holiday(monday):
            monday += timedelta(days=7)
        return cls(monday)


def _has_holiday(monday: date) -> bool:
    from holidays.countries.vietnam import Vietnam  # takes a moment to load, and is only asked for another week

    make: Any = Vietnam
    off = make(years=(monday.year, monday.year + 1))
    return any(monday + timedelta(days=number) in off for number in range(DAYS))


def arrivals(seed: int, communes: int = 1, week: Week | None = None) -> list[Arrival]:
    """The whole week in order of time."""
    found: list[Arrival] = []
    for commune in range(communes):
        chance = random.Random(f"{seed}/{commune}")
        owed = dict.fromkeys(MIX, 0.5)
        for day in (TUESDAY, *(day for day in range(DAYS) if day not in ALIKE)):
            todays = list(_day(chance, week or Week(), day, commune, owed))
            for other in ALIKE if day == TUESDAY else (day,):
                moved = timedelta(days=other - day)
                found += [replace(one, at=one.at + moved, seed=one.seed + (other - day) * 10_000) for one in todays]
    return sorted(found, key=lambda arrival: (arrival.at, arrival.seed))


def _day(chance: random.Random, week: Week, day: int, commune: int, owed: dict[str, float]) -> list[Arrival]:
    """One day's arrivals; fractions of a dossier are carried over to the next day."""
    codes: list[str] = []
    for code, per_day in MIX.items():
        owed[code] += per_day
        count = int(owed[code])
        owed[code] -= count
        if day == TUESDAY and code == "1.001193":
            # The comparison is about the registry: on the two days compared there are births.
            count = max(count, 2)
        codes += [code] * count
    chance.shuffle(codes)
    found = []
    for number, code in enumerate(codes):
        moment = datetime.combine(week.monday + timedelta(days=day), _time(chance), VIETNAM)
        person = day * 10_000 + commune * 1_000_000 + number
        found.append(Arrival(moment, code, _channel(chance, code), commune, person))
    return found


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
