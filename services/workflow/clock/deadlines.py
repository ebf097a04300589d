"""The legal clock: when a dossier is due, and which days count.

Day of receipt is day 0; only working days count (Civil Code 2015 arts 147 and 148). What is received after 15:00 counts
as received the next working day where the procedure says so (Civil Status Law art. 5(3); decree 23/2015 art. 7).
A dossier is due at the end of office hours of its due day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Protocol

from services.workflow.clock.calendar import DayStatus, WorkingCalendar
from shared.clock import VIETNAM


class Limit(Protocol):
    """What the clock needs of a procedure's `time` (`TimeLimit`)."""

    @property
    def working_days(self) -> int: ...
    @property
    def late_cutoff(self) -> time | None: ...
    @property
    def late_cutoff_shifts_count(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class CountedDay:
    """One calendar day between receipt and due date. `number`: 0 is the day of receipt, None is not counted."""

    date: date
    number: int | None
    vi: str
    en: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a due date is computed: `counts_from` is day 0, `days` every calendar day from receipt to the due date."""

    received_office_at: datetime
    counts_from: date
    due_office_at: datetime
    days: tuple[CountedDay, ...]


def due(calendar: WorkingCalendar, received_at: datetime, limit: Limit) -> datetime:
    """When a dossier received at `received_at` is due, in Vietnam's time.

    Raises ValueError when `received_at` has no zone, or a day lies outside 2000 to 2099.
    """
    day_zero, _ = _day_zero(calendar, received_at, limit)
    return calendar.end_of(calendar.working_day_after(day_zero, limit.working_days))


def explain(calendar: WorkingCalendar, received_at: datetime, limit: Limit) -> Explanation:
    """The due time and every calendar day since receipt: counted or not, and why. Raises as `due` does."""
    day_zero, shifted = _day_zero(calendar, received_at, limit)
    due_at = due(calendar, received_at, limit)
    received = received_at.astimezone(VIETNAM)
    return Explanation(received, day_zero, due_at, tuple(_days(calendar, received, day_zero, due_at.date(), shifted)))


def _day_zero(calendar: WorkingCalendar, received_at: datetime, limit: Limit) -> tuple[date, bool]:
    """The day that counts as the day of receipt, and whether the hour of receipt has moved it."""
    if received_at.tzinfo is None:
        raise ValueError("the time of receipt must have a time zone")
    local = received_at.astimezone(VIETNAM)
    day = local.date()
    if not calendar.is_working_day(day):
        return calendar.first_working_day(day), False
    same_day = limit.working_days == 0
    late = limit.late_cutoff is not None and local.time() > limit.late_cutoff
    # Without a cut-off, a same-day dossier that comes after closing time would be due before it came.
    if (late and (same_day or limit.late_cutoff_shifts_count)) or (same_day and local.time() >= calendar.closes):
        return calendar.next_working_day(day), True
    return day, False


def _days(
    calendar: WorkingCalendar, received: datetime, day_zero: date, last: date, shifted: bool
) -> Iterator[CountedDay]:
    number = 0
    day = received.date()
    while day <= last:
        status = calendar.status(day)
        if day < day_zero:
            yield _before_day_zero(day, status, received, shifted and day == received.date())
        elif day == day_zero:
            yield CountedDay(
                day, 0, f"{status.vi}: ngày tiếp nhận, chưa tính", f"{status.en}: day of receipt, not yet counted"
            )
        elif status.working:
            number += 1
            yield CountedDay(
                day, number, f"{status.vi}: ngày làm việc thứ {number}", f"{status.en}: working day {number}"
            )
        else:
            yield CountedDay(day, None, f"{status.vi}: không tính", f"{status.en}: not counted")
        day += timedelta(days=1)


def _before_day_zero(day: date, status: DayStatus, received: datetime, late: bool) -> CountedDay:
    if late:
        hour = received.strftime("%H:%M")
        return CountedDay(
            day,
            None,
            f"{status.vi}: nhận lúc {hour}, tính là nhận ngày làm việc tiếp theo",
            f"{status.en}: received at {hour}, counts as received the next working day",
        )
    return CountedDay(day, None, f"{status.vi}: không tính", f"{status.en}: not counted")
