"""A commune's week, seeded: who comes when, with what, by which channel. Pure.

Chí Tiên, Monday 25 to Friday 29 August 2025: about 82 dossiers a working day. Mix, rhythm, channels and staff are
those of a published or plausible centre (mark C); Wednesday's arrivals are Tuesday's, moved by a day, so that a slow
Wednesday can be compared with a healthy Tuesday.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta

from shared.office import VIETNAM

MONDAY = date(2025, 8, 25)
DAYS = 5
TUESDAY, WEDNESDAY = 1, 2
MONDAY_SHARE = 1.3

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


def arrivals(seed: int, communes: int = 1) -> list[Arrival]:
    """The whole week in order of time."""
    week: list[Arrival] = []
    for commune in range(communes):
        chance = random.Random(f"{seed}/{commune}")
        owed = dict.fromkeys(MIX, 0.5)
        tuesday: list[Arrival] = []
        for day in range(DAYS):
            if day == WEDNESDAY:
                moved = [replace(a, at=a.at + timedelta(days=1), seed=a.seed + 500_000) for a in tuesday]
                week += moved
                continue
            todays = list(_day(chance, day, commune, owed))
            if day == TUESDAY:
                tuesday = todays
            week += todays
    return sorted(week, key=lambda arrival: (arrival.at, arrival.seed))


def _day(chance: random.Random, day: int, commune: int, owed: dict[str, float]) -> list[Arrival]:
    """One day's arrivals; fractions of a dossier are carried over to the next day."""
    share = MONDAY_SHARE if day == 0 else (DAYS - MONDAY_SHARE) / (DAYS - 1)
    codes: list[str] = []
    for code, per_day in MIX.items():
        owed[code] += per_day * share
        count = int(owed[code])
        owed[code] -= count
        if day == TUESDAY and code == "1.001193":
            # The comparison is about the registry: on the two days compared there are births.
            count = max(count, 2)
        codes += [code] * count
    chance.shuffle(codes)
    found = []
    for number, code in enumerate(codes):
        moment = datetime.combine(MONDAY + timedelta(days=day), _time(chance), VIETNAM)
        person = day * 10_000 + commune * 100_000_0 + number
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
