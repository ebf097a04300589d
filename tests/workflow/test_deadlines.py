"""When a dossier is due, and how much working time lies between two moments."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.workflow.clock import holidays
from services.workflow.clock.calendar import CalendarRules, WorkingCalendar
from services.workflow.clock.deadlines import due, explain
from services.workflow.procedures import TimeLimit
from shared.clock import VIETNAM

CALENDAR = WorkingCalendar()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=VIETNAM)


def limit(days: int, *, cutoff: time | None = time(15), shifts: bool = True) -> TimeLimit:
    return TimeLimit(working_days=days, late_cutoff=cutoff, late_cutoff_shifts_count=shifts)


VECTORS = [
    ("2025-08-27 09:00", 0, "2025-08-27"),
    ("2025-08-27 15:20", 0, "2025-08-28"),
    ("2025-08-29 14:30", 3, "2025-09-05"),
    ("2025-08-29 15:30", 3, "2025-09-08"),
    ("2025-12-31 10:00", 3, "2026-01-07"),
    ("2026-01-08 10:00", 3, "2026-01-12"),
    ("2026-02-13 09:00", 5, "2026-02-27"),
    ("2026-04-24 09:00", 3, "2026-05-04"),
    ("2026-08-20 09:00", 3, "2026-08-24"),
]


@pytest.mark.parametrize(("received", "days", "expected"), VECTORS)
def test_a_dossier_is_due_on_the_day_the_law_gives(received: str, days: int, expected: str) -> None:
    assert due(CALENDAR, at(received), limit(days)) == at(f"{expected} 17:00")


def test_the_time_zone_of_the_receipt_does_not_change_the_due_date() -> None:
    assert due(CALENDAR, datetime(2025, 8, 27, 8, 20, tzinfo=UTC), limit(0)) == at("2025-08-28 17:00")


def test_fifteen_hours_sharp_is_in_time_and_a_microsecond_later_is_late() -> None:
    assert due(CALENDAR, at("2025-08-27 15:00"), limit(0)).date() == date(2025, 8, 27)
    assert due(CALENDAR, at("2025-08-27 15:00:00.000001"), limit(0)).date() == date(2025, 8, 28)


def test_the_cut_off_moves_a_count_of_several_days_only_where_the_procedure_says_so() -> None:
    late = at("2025-08-25 16:00")
    assert due(CALENDAR, late, limit(3)).date() == date(2025, 8, 29)
    assert due(CALENDAR, late, limit(3, shifts=False)).date() == date(2025, 8, 28)
    assert due(CALENDAR, late, limit(0, shifts=False)).date() == date(2025, 8, 26)


def test_a_same_day_dossier_without_a_cut_off_is_never_due_before_its_receipt() -> None:
    assert due(CALENDAR, at("2025-08-25 16:59"), limit(0, cutoff=None)) == at("2025-08-25 17:00")
    assert due(CALENDAR, at("2025-08-25 17:00"), limit(0, cutoff=None)) == at("2025-08-26 17:00")


def test_receipt_on_a_day_off_counts_as_receipt_the_next_working_day_whatever_the_hour() -> None:
    for hour in ("08:00", "16:00", "23:59"):
        assert due(CALENDAR, at(f"2025-08-30 {hour}"), limit(0)) == at("2025-09-03 17:00")
        assert due(CALENDAR, at(f"2025-08-30 {hour}"), limit(1)) == at("2025-09-04 17:00")


def test_a_time_without_a_zone_is_refused() -> None:
    naive = datetime(2025, 8, 27, 9)  # noqa: DTZ001 - a time without a zone is what the test needs
    with pytest.raises(ValueError, match="zone"):
        due(CALENDAR, naive, limit(0))
    with pytest.raises(ValueError, match="zone"):
        CALENDAR.working_seconds(naive, at("2025-08-27 10:00"))


def test_a_year_without_known_holidays_is_refused() -> None:
    with pytest.raises(ValueError, match="2100"):
        due(CALENDAR, at("2100-01-04 09:00"), limit(0))


def test_the_explanation_shows_every_day_and_why() -> None:
    explanation = explain(CALENDAR, at("2025-12-31 15:30"), limit(3))
    assert explanation.due_office_at == due(CALENDAR, at("2025-12-31 15:30"), limit(3)) == at("2026-01-08 17:00")
    assert explanation.counts_from == date(2026, 1, 5)
    assert [(day.date.isoformat(), day.number) for day in explanation.days] == [
        ("2025-12-31", None),
        ("2026-01-01", None),
        ("2026-01-02", None),
        ("2026-01-03", None),
        ("2026-01-04", None),
        ("2026-01-05", 0),
        ("2026-01-06", 1),
        ("2026-01-07", 2),
        ("2026-01-08", 3),
    ]
    assert "15:30" in explanation.days[0].vi
    assert "Tết Dương lịch" in explanation.days[1].vi
    assert "12729/VPCP-KGVX" in explanation.days[2].vi
    assert "thứ Bảy" in explanation.days[3].vi
    assert "working day 3" in explanation.days[-1].en


def test_a_saturday_worked_by_a_swap_is_counted_and_named() -> None:
    explanation = explain(CALENDAR, at("2026-01-08 10:00"), limit(3))
    saturday = next(day for day in explanation.days if day.date == date(2026, 1, 10))
    assert saturday.number == 2
    assert "12729/VPCP-KGVX" in saturday.en


def test_a_storm_day_entered_by_the_centre_moves_the_due_date() -> None:
    rules = CalendarRules.shipped().model_dump(mode="json")
    rules["overrides"].append({"date": "2025-08-26", "kind": "off", "document": "15/CĐ-UBND"})
    stormy = WorkingCalendar(CalendarRules.model_validate(rules))
    assert due(CALENDAR, at("2025-08-25 09:00"), limit(3)).date() == date(2025, 8, 28)
    assert due(stormy, at("2025-08-25 09:00"), limit(3)).date() == date(2025, 8, 29)
    assert stormy.working_seconds(at("2025-08-26 00:00"), at("2025-08-27 00:00")) == 0


def test_the_library_still_misses_the_swap_that_is_shipped_as_an_override() -> None:
    library = holidays.from_library([2026])[2026]
    assert date(2026, 1, 2) not in library.off
    assert date(2026, 1, 10) not in library.worked
    assert not CALENDAR.is_working_day(date(2026, 1, 2))
    assert CALENDAR.is_working_day(date(2026, 1, 10))


def test_the_holiday_table_is_what_the_library_says() -> None:
    text = resources.files("services.workflow.clock").joinpath("holidays.json").read_text(encoding="utf-8")
    kept, fresh = json.loads(text), json.loads(holidays.table_text())
    assert kept["off"] == fresh["off"]
    assert kept["worked"] == fresh["worked"]


def test_years_outside_the_table_come_from_the_library() -> None:
    assert not CALENDAR.is_working_day(date(2033, 9, 2))
    assert CALENDAR.is_working_day(date(2033, 9, 5))


def test_years_in_the_table_do_not_load_the_holiday_library() -> None:
    program = (
        "import sys; from services.workflow.clock.calendar import WorkingCalendar as W; from datetime import date;"
        "W().is_working_day(date(2026, 1, 2)); sys.exit('holidays' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# ---- working time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        ("2025-08-27 07:30", "2025-08-27 17:00", 7.5),
        ("2025-08-27 11:00", "2025-08-27 14:00", 1.0),
        ("2025-08-27 12:00", "2025-08-27 13:00", 0.0),
        ("2025-08-29 16:00", "2025-09-03 08:30", 2.0),
        ("2025-12-31 07:30", "2026-01-05 07:30", 7.5),
        ("2026-01-09 17:00", "2026-01-12 07:30", 7.5),
        ("2025-08-27 10:00", "2025-08-27 09:00", -1.0),
    ],
)
def test_working_time_is_office_hours_only(start: str, end: str, hours: float) -> None:
    assert CALENDAR.working_seconds(at(start), at(end)) == hours * 3600


def test_saturday_service_is_working_time_but_no_working_day() -> None:
    rules = CalendarRules.shipped().model_copy(update={"saturday_hours": CalendarRules.shipped().office_hours[:1]})
    calendar = WorkingCalendar(rules)
    assert calendar.working_seconds(at("2025-08-23 00:00"), at("2025-08-24 00:00")) == 4 * 3600
    assert not calendar.is_working_day(date(2025, 8, 23))
    assert due(calendar, at("2025-08-23 08:00"), limit(0)).date() == date(2025, 8, 25)


def test_saturday_service_has_no_working_time_on_holidays_and_days_off() -> None:
    rules = CalendarRules.shipped().model_dump(mode="json")
    rules["saturday_hours"] = rules["office_hours"][:1]
    rules["overrides"].append({"date": "2025-08-23", "kind": "off", "document": "15/CĐ-UBND"})
    calendar = WorkingCalendar(CalendarRules.model_validate(rules))
    assert calendar.working_seconds(at("2025-08-23 00:00"), at("2025-08-24 00:00")) == 0
    assert calendar.working_seconds(at("2027-05-01 00:00"), at("2027-05-02 00:00")) == 0
    assert calendar.working_seconds(at("2025-08-16 00:00"), at("2025-08-17 00:00")) == 4 * 3600


def test_a_step_target_continues_after_the_night_and_the_holidays() -> None:
    assert CALENDAR.add_working_seconds(at("2025-08-29 16:00"), 2 * 3600) == at("2025-09-03 08:30")
    assert CALENDAR.add_working_seconds(at("2025-08-27 09:00"), 2.5 * 3600) == at("2025-08-27 11:30")
    assert CALENDAR.add_working_seconds(at("2025-12-31 16:59"), 3600) == at("2026-01-05 08:29")
    with pytest.raises(ValueError, match="negative"):
        CALENDAR.add_working_seconds(at("2025-08-27 09:00"), -1)


moments = st.datetimes(datetime(2024, 1, 1), datetime(2030, 6, 30), timezones=st.just(VIETNAM))  # noqa: DTZ001
limits = st.builds(limit, st.integers(0, 30), cutoff=st.sampled_from([time(15), None]), shifts=st.booleans())
budgets = st.integers(0, 2_000_000_000).map(lambda millis: millis / 1000)


@given(moments, moments, limits)
def test_a_dossier_received_later_is_never_due_earlier(one: datetime, other: datetime, rule: TimeLimit) -> None:
    first, second = sorted((one, other))
    assert due(CALENDAR, first, rule) <= due(CALENDAR, second, rule)


@given(moments, limits)
def test_no_dossier_is_due_on_a_day_off_or_before_its_receipt(received: datetime, rule: TimeLimit) -> None:
    due_office_at = due(CALENDAR, received, rule)
    assert CALENDAR.is_working_day(due_office_at.date())
    assert due_office_at.time() == time(17)
    assert due_office_at > received


@given(moments, limits)
def test_the_explanation_counts_as_many_working_days_as_the_law_gives(received: datetime, rule: TimeLimit) -> None:
    explanation = explain(CALENDAR, received, rule)
    assert explanation.due_office_at == due(CALENDAR, received, rule)
    numbers = [day.number for day in explanation.days if day.number is not None]
    assert numbers == list(range(rule.working_days + 1))
    whole_days = (explanation.due_office_at.date() - received.date()).days
    assert [day.date for day in explanation.days] == [
        received.date() + timedelta(days=n) for n in range(whole_days + 1)
    ]


@given(moments, moments, moments)
def test_working_time_adds_up(a: datetime, b: datetime, c: datetime) -> None:
    parts = CALENDAR.working_seconds(a, b) + CALENDAR.working_seconds(b, c)
    assert parts == pytest.approx(CALENDAR.working_seconds(a, c), abs=1e-5)
    assert CALENDAR.position(b) - CALENDAR.position(a) == pytest.approx(CALENDAR.working_seconds(a, b), abs=1e-5)


@given(moments, budgets, st.floats(0, 1))
def test_consumed_and_remaining_working_time_add_up_to_the_whole(start: datetime, budget: float, share: float) -> None:
    end = CALENDAR.add_working_seconds(start, budget)
    between = start + (end - start) * share
    total = CALENDAR.working_seconds(start, between) + CALENDAR.working_seconds(between, end)
    assert total == pytest.approx(budget, abs=1e-5)


@given(moments, budgets.filter(bool))
def test_a_step_target_is_the_first_time_with_enough_working_time(start: datetime, budget: float) -> None:
    end = CALENDAR.add_working_seconds(start, budget)
    assert CALENDAR.working_seconds(start, end - timedelta(microseconds=1)) < budget


# ---- the document of GET and PUT /v1/calendar ------------------------------------------------------------------------


def test_the_calendar_rules_survive_json() -> None:
    rules = CalendarRules.shipped()
    assert CalendarRules.model_validate_json(rules.model_dump_json()) == rules
    assert rules.overrides[0].document.startswith("12729/VPCP-KGVX")


@pytest.mark.parametrize(
    "wrong",
    [
        {"office_hours": []},
        {"office_hours": [{"opens": "11:30", "closes": "07:30"}]},
        {"office_hours": [{"opens": "07:30", "closes": "11:30"}, {"opens": "11:00", "closes": "17:00"}]},
        {"office_hours": [{"opens": "07:30:30", "closes": "11:30"}]},
        {"office_hours": [{"opens": "07:30+07:00", "closes": "11:30"}]},
        {"overrides": [{"date": "2026-01-02", "kind": "off", "document": " "}]},
        {"overrides": [{"date": "2026-01-02", "kind": "half", "document": "1/QĐ"}]},
        {"overrides": [{"date": "2199-01-02", "kind": "off", "document": "1/QĐ"}]},
        {"overrides": [{"date": "2026-01-02", "kind": kind, "document": "1/QĐ"} for kind in ("off", "worked")]},
        {"lunch": "long"},
    ],
)
def test_an_invalid_calendar_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CalendarRules.model_validate(CalendarRules.shipped().model_dump(mode="json") | wrong)
