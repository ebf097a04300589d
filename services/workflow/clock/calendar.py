"""The days and hours at which the centre works, and the working time between two times.

Public holidays come from `holidays`. The centre's own rules (`CalendarRules`) correct them, because swaps are announced
late and storms close an office. Every time must have a time zone; days are days in Vietnam.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from importlib import resources
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.workflow.clock.holidays import FIRST_YEAR, LAST_YEAR, HolidayYear, holiday_year
from shared.clock import VIETNAM
from shared.refusals import broken_rule

MICRO = 1_000_000
MAX_REMEMBERED = 1_000
DAY_NAMES = (
    ("thứ Hai", "Monday"),
    ("thứ Ba", "Tuesday"),
    ("thứ Tư", "Wednesday"),
    ("thứ Năm", "Thursday"),
    ("thứ Sáu", "Friday"),
    ("thứ Bảy", "Saturday"),
    ("Chủ nhật", "Sunday"),
)


def _plain(value: time) -> time:
    if value.tzinfo is not None or value.second or value.microsecond:
        raise broken_rule(
            "Giờ làm việc viết HH:MM, không giây, không múi giờ.", "An office hour is HH:MM, without seconds or zone."
        )
    return value


ClockTime = Annotated[time, AfterValidator(_plain)]


class Rules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Span(Rules):
    """One continuous span of opening hours."""

    opens: ClockTime
    closes: ClockTime

    @model_validator(mode="after")
    def _opens_first(self) -> Self:
        if self.opens >= self.closes:
            raise broken_rule("`opens` phải trước `closes`.", "`opens` must be before `closes`.")
        return self


class DayOverride(Rules):
    """One day that differs from the public holidays, with the document that decided it."""

    date: date
    kind: Literal["off", "worked"]
    document: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class CalendarRules(Rules):
    """The document of `GET` and `PUT /v1/calendar`."""

    office_hours: tuple[Span, ...] = Field(min_length=1, max_length=6)
    """Hours from Monday to Friday, and on every weekend day that is worked by a swap."""
    saturday_hours: tuple[Span, ...] = Field(default=(), max_length=6)
    """Hours of Saturday service. They are working time, but Saturday is not a working day of the legal clock."""
    overrides: tuple[DayOverride, ...] = Field(default=(), max_length=2000)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for spans in (self.office_hours, self.saturday_hours):
            if any(before.closes > after.opens for before, after in pairwise(spans)):
                raise broken_rule(
                    "Giờ mở cửa phải theo thứ tự và không chồng nhau.",
                    "Opening hours must be in order and must not overlap.",
                )
        days = [override.date for override in self.overrides]
        if len(set(days)) != len(days):
            raise broken_rule("Mỗi ngày chỉ được sửa một lần.", "A day may be overridden only once.")
        if any(not FIRST_YEAR <= day.year <= LAST_YEAR for day in days):
            raise broken_rule(
                f"Ngày được sửa phải từ năm {FIRST_YEAR} đến {LAST_YEAR}.",
                f"An overridden day must be between {FIRST_YEAR} and {LAST_YEAR}.",
            )
        return self

    @classmethod
    def shipped(cls) -> CalendarRules:
        """The rules that come with hoso (`calendar.toml`)."""
        text = resources.files(__package__).joinpath("calendar.toml").read_text(encoding="utf-8")
        return cls.model_validate(tomllib.loads(text))


@dataclass(frozen=True, slots=True)
class DayStatus:
    """Whether a day is a working day of the legal clock, and why (Vietnamese, English)."""

    working: bool
    vi: str
    en: str


@dataclass(frozen=True, slots=True)
class _Year:
    first: int
    """Ordinal of 1 January."""
    before: tuple[int, ...]
    """Working microseconds from 1 January to the start of each day, and to the end of the last day."""
    spans: tuple[tuple[tuple[int, int], ...], ...]
    """Opening hours of each day, in microseconds since midnight."""


class WorkingCalendar:
    """The calendar by one set of rules, which never changes. Computes a year when it is first asked for."""

    __slots__ = ("_days_after", "_overrides", "_starts", "_sums", "_years", "rules")

    def __init__(self, rules: CalendarRules | None = None) -> None:
        self.rules = rules or CalendarRules.shipped()
        self._overrides = {override.date: override for override in self.rules.overrides}
        self._years: dict[int, _Year] = {}
        self._starts: dict[int, int] = {2025: 0}
        # The dossiers of one batch need the same results.
        self._days_after: dict[tuple[date, int], date] = {}
        self._sums: dict[tuple[datetime, float], datetime] = {}

    @property
    def closes(self) -> time:
        """The hour at which a working day, and so a due day, ends."""
        return self.rules.office_hours[-1].closes

    def status(self, day: date) -> DayStatus:
        """Whether `day` is a working day, and why. Raises ValueError outside 2000 to 2099."""
        override = self._overrides.get(day)
        holidays = holiday_year(day.year)
        if override is not None:
            if override.kind == "off":
                return DayStatus(False, f"nghỉ theo {override.document}", f"off by {override.document}")
            return DayStatus(True, f"làm việc theo {override.document}", f"worked by {override.document}")
        if day in holidays.off:
            return DayStatus(False, *holidays.off[day])
        if day in holidays.worked:
            return DayStatus(True, "làm bù", "worked in exchange for another day off")
        return DayStatus(day.weekday() < 5, *DAY_NAMES[day.weekday()])

    def is_working_day(self, day: date) -> bool:
        """Whether `day` is a working day of the legal clock. Raises ValueError outside 2000 to 2099."""
        return self._is_working(day, holiday_year(day.year))

    def _is_working(self, day: date, holidays: HolidayYear) -> bool:
        override = self._overrides.get(day)
        if override is not None:
            return override.kind == "worked"
        return day in holidays.worked or (day.weekday() < 5 and day not in holidays.off)

    def first_working_day(self, day: date) -> date:
        """The day itself, or the next working day."""
        while not self.is_working_day(day):
            day += timedelta(days=1)
        return day

    def next_working_day(self, day: date) -> date:
        return self.first_working_day(day + timedelta(days=1))

    def working_day_after(self, day: date, count: int) -> date:
        """The `count`-th working day after `day`; the day itself when `count` is 0."""
        result = self._days_after.get((day, count))
        if result is None:
            result = day
            for _ in range(count):
                result = self.next_working_day(result)
            if len(self._days_after) >= MAX_REMEMBERED:
                self._days_after.clear()
            self._days_after[day, count] = result
        return result

    def end_of(self, day: date) -> datetime:
        """The end of office hours of that day."""
        return datetime.combine(day, self.closes, VIETNAM)

    def working_seconds(self, start: datetime, end: datetime) -> float:
        """Working seconds from `start` to `end`; negative if `end` is earlier. Raises ValueError for a naive time."""
        return (self._position(end) - self._position(start)) / MICRO

    def position(self, moment: datetime) -> float:
        """Working seconds since the start of 2025. The difference of two positions is the working time between them."""
        return self._position(moment) / MICRO

    def add_working_seconds(self, start: datetime, seconds: float) -> datetime:
        """The first time at which `seconds` working seconds have passed since `start`; `start` itself for 0.

        Raises ValueError when `seconds` is negative, or when the result is after 2099.
        """
        result = self._sums.get((start, seconds))
        if result is None:
            result = self._add(start, seconds)
            if len(self._sums) >= MAX_REMEMBERED:
                self._sums.clear()
            self._sums[start, seconds] = result
        return result

    def _add(self, start: datetime, seconds: float) -> datetime:
        if seconds < 0:
            raise ValueError("working seconds to add must not be negative")
        micros = round(seconds * MICRO)
        local = _in_vietnam(start)
        if micros == 0:
            return local
        target = self._position(local) + micros
        number = local.year
        while self._start(number + 1) < target:
            number += 1
        year, target = self._year(number), target - self._start(number)
        index = bisect_left(year.before, target) - 1
        left = target - year.before[index]
        for opens, closes in year.spans[index]:
            if left <= closes - opens:
                midnight = datetime(number, 1, 1, tzinfo=VIETNAM) + timedelta(days=index)
                return midnight + timedelta(microseconds=opens + left)
            left -= closes - opens
        raise AssertionError("a day's opening hours add up to less than its working time")

    def _position(self, moment: datetime) -> int:
        local = _in_vietnam(moment)
        year = self._year(local.year)
        index = local.toordinal() - year.first
        passed = year.before[index]
        if year.spans[index]:
            now = ((local.hour * 60 + local.minute) * 60 + local.second) * MICRO + local.microsecond
            for opens, closes in year.spans[index]:
                if now > opens:
                    passed += min(now, closes) - opens
        return self._start(local.year) + passed

    def _start(self, number: int) -> int:
        """Working microseconds from 1 January 2025 to 1 January of a year, negative for earlier ones."""
        start = self._starts.get(number)
        if start is None:
            if number > 2025:
                start = self._start(number - 1) + self._year(number - 1).before[-1]
            else:
                start = self._start(number + 1) - self._year(number).before[-1]
            self._starts[number] = start
        return start

    def _year(self, number: int) -> _Year:
        year = self._years.get(number)
        if year is None:
            year = self._years[number] = self._compute_year(number)
        return year

    def _compute_year(self, number: int) -> _Year:
        holidays = holiday_year(number)
        weekday, saturday = _micros(self.rules.office_hours), _micros(self.rules.saturday_hours)
        first = date(number, 1, 1)
        spans: list[tuple[tuple[int, int], ...]] = []
        before = [0]
        for offset in range((date(number + 1, 1, 1) - first).days):
            day = first + timedelta(days=offset)
            if self._is_working(day, holidays):
                spans.append(weekday)
            elif day.weekday() == 5 and day not in holidays.off and day not in self._overrides:
                spans.append(saturday)
            else:
                spans.append(())
            before.append(before[-1] + sum(closes - opens for opens, closes in spans[-1]))
        return _Year(first.toordinal(), tuple(before), tuple(spans))


def _in_vietnam(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time must have a time zone")
    return moment if moment.tzinfo is VIETNAM else moment.astimezone(VIETNAM)


def _micros(spans: tuple[Span, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (
            span.opens.hour * 3600 * MICRO + span.opens.minute * 60 * MICRO,
            span.closes.hour * 3600 * MICRO + span.closes.minute * 60 * MICRO,
        )
        for span in spans
    )
