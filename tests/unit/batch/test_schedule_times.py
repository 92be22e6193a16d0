from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepensemble.batch.schedule_times import UnknownExpression, next_times, read_cron

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


def shown(expression: str, many: int = 4, timezone: str = "UTC", after: datetime = NEW_YEAR) -> list[str]:
    return [f"{time:%a %Y-%m-%d %H:%M}" for time in next_times(expression, timezone, after, many)]


# The examples of https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-cron-expressions.html and of the
# scheduler's documentation, each with its meaning in words.
@pytest.mark.parametrize(
    ("expression", "words", "times"),
    [
        ("cron(0 10 * * ? *)", "10:00 every day", ["Thu 2026-01-01 10:00", "Fri 2026-01-02 10:00"]),
        ("cron(15 12 * * ? *)", "12:15 every day", ["Thu 2026-01-01 12:15", "Fri 2026-01-02 12:15"]),
        (
            "cron(0 18 ? * MON-FRI *)",
            "18:00 Monday through Friday",
            ["Thu 2026-01-01 18:00", "Fri 2026-01-02 18:00", "Mon 2026-01-05 18:00"],
        ),
        ("cron(0 8 1 * ? *)", "8:00 on the first day of the month", ["Thu 2026-01-01 08:00", "Sun 2026-02-01 08:00"]),
        (
            "cron(0/15 * * * ? *)",
            "every 15 minutes",
            ["Thu 2026-01-01 00:15", "Thu 2026-01-01 00:30", "Thu 2026-01-01 00:45"],
        ),
        (
            "cron(0/10 * ? * MON-FRI *)",
            "every 10 minutes, Monday through Friday",
            ["Thu 2026-01-01 00:10", "Thu 2026-01-01 00:20"],
        ),
        (
            "cron(0/5 8-17 ? * MON-FRI *)",
            "every 5 minutes from 8:00 to 17:55, Monday through Friday",
            ["Thu 2026-01-01 08:00", "Thu 2026-01-01 08:05"],
        ),
        (
            "cron(0 9 ? * 2#1 *)",
            "9:00 on the first Monday of each month",
            ["Mon 2026-01-05 09:00", "Mon 2026-02-02 09:00", "Mon 2026-03-02 09:00"],
        ),
        (
            "cron(15 10 ? * 6L 2026-2027)",
            "10:15 on the last Friday of each month of those years",
            ["Fri 2026-01-30 10:15", "Fri 2026-02-27 10:15"],
        ),
        (
            "cron(0 10 ? * 3#2 *)",
            "3#2 is the second Tuesday of the month",
            ["Tue 2026-01-13 10:00", "Tue 2026-02-10 10:00"],
        ),
        (
            "cron(0 0 3W * ? *)",
            "3W is the weekday closest to the third day",
            ["Fri 2026-01-02 00:00", "Tue 2026-02-03 00:00", "Tue 2026-03-03 00:00"],
        ),
        ("cron(0 0 L * ? *)", "L is the last day of the month", ["Sat 2026-01-31 00:00", "Sat 2026-02-28 00:00"]),
        ("cron(0 0 ? * L *)", "L is the last day of the week", ["Sat 2026-01-03 00:00", "Sat 2026-01-10 00:00"]),
        (
            "cron(1/10 0 1 JAN,FEB,MAR ? 2027)",
            "from the first minute on, in these months",
            ["Fri 2027-01-01 00:01", "Fri 2027-01-01 00:11"],
        ),
        ("rate(5 minutes)", "every five minutes", ["Thu 2026-01-01 00:05", "Thu 2026-01-01 00:10"]),
        ("rate(1 hour)", "every hour", ["Thu 2026-01-01 01:00", "Thu 2026-01-01 02:00"]),
        ("at(2026-11-20T13:00:00)", "once", ["Fri 2026-11-20 13:00"]),
    ],
)
def test_the_examples_of_the_aws_documentation(expression: str, words: str, times: list[str]) -> None:
    assert shown(expression, len(times)) == times, words


def test_the_nearest_weekday_is_in_the_same_month() -> None:
    # 1 August 2026 is a Saturday, 1 November a Sunday; 31 January is a Saturday, 31 May a Sunday.
    assert shown("cron(0 0 1W 8,11 ? 2026)") == ["Mon 2026-08-03 00:00", "Mon 2026-11-02 00:00"]
    assert shown("cron(0 0 LW 1,5 ? 2026)") == ["Fri 2026-01-30 00:00", "Fri 2026-05-29 00:00"]
    assert shown("cron(0 0 31W 4 ? 2026)") == []


def test_a_time_that_the_clocks_skip_is_skipped_and_one_they_show_twice_counts_once() -> None:
    zone = "Europe/Berlin"  # 29 March 2026: 2:00 becomes 3:00; 25 October 2026: 3:00 becomes 2:00
    spring = shown("cron(30 2 28-30 3 ? 2026)", timezone=zone)
    assert spring == ["Sat 2026-03-28 02:30", "Mon 2026-03-30 02:30"]
    autumn = next_times("cron(30 2 24-26 10 ? 2026)", zone, NEW_YEAR, 4)
    assert [f"{time:%d %H:%M %z}" for time in autumn] == ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]


def test_a_rate_counts_from_the_start_and_its_days_have_24_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = datetime(2026, 3, 28, 12, tzinfo=zone)
    times = next_times("rate(1 day)", "Europe/Berlin", start, 2, start=start)
    assert [f"{time:%d %H:%M}" for time in times] == ["29 13:00", "30 13:00"]
    later = next_times("rate(2 days)", "UTC", datetime(2026, 1, 6, 11, tzinfo=UTC), 1, start=NEW_YEAR)
    assert later == [datetime(2026, 1, 7, tzinfo=UTC)]
    assert next_times("rate(2 days)", "UTC", NEW_YEAR - timedelta(days=1), 1, start=NEW_YEAR) == [NEW_YEAR]


def test_a_schedule_has_no_times_before_its_start_or_after_its_end() -> None:
    daily, start, end = "cron(0 3 * * ? *)", datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 3, tzinfo=UTC)
    times = next_times(daily, "UTC", NEW_YEAR, 5, start=start, end=end)
    assert [time.date() for time in times] == [date(2026, 2, 1), date(2026, 2, 2)]
    assert next_times("at(2025-12-31T00:00:00)", "UTC", NEW_YEAR, 5) == []


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("every day", "is not cron"),
        ("cron(0 10 * * ?)", "has 5 fields"),
        ("cron(0 10 * * * *)", 'write "\\?" for one'),
        ("cron(0 10 ? * ? *)", 'write "\\?" for one'),
        ("cron(60 10 * * ? *)", "minutes: '60' is not from 0 to 59"),
        ("cron(0 10 ? * MUN *)", "day-of-week: 'MUN' is not from 1 to 7"),
        ("cron(0 10 20-10 * ? *)", "day-of-month: '20-10' ends before it begins"),
        ("cron(0 0/0 * * ? *)", "hours: '0/0' has an increment of 0"),
        ("cron(0 10 ? * 3#1,6#3 *)", "day-of-week: '3#1' is not a number"),
        ("cron(-5 10 * * ? *)", "minutes: '-5' is not a number"),
        ("rate(0 days)", "write a number and minutes, hours or days"),
        ("rate(99999999999999 days)", "write a smaller number"),
        ("at(9999-12-31T23:59:59)", "write a year from 1970 to 2199"),
        ("at(tomorrow)", "write at\\(yyyy"),
    ],
)
def test_an_invalid_expression_is_rejected_with_the_reason(expression: str, message: str) -> None:
    with pytest.raises(UnknownExpression, match=message):
        next_times(expression, "UTC", NEW_YEAR, 1)


@given(
    st.sets(st.integers(0, 59), min_size=1, max_size=3),
    st.sets(st.integers(0, 23), min_size=1, max_size=3),
    st.sets(st.integers(1, 7), min_size=1, max_size=3),
    st.integers(0, 400_000),
)
def test_the_times_are_all_minutes_that_match(
    minutes: set[int], hours: set[int], weekdays: set[int], offset: int
) -> None:
    after = NEW_YEAR + timedelta(minutes=offset)
    fields = [",".join(map(str, numbers)) for numbers in (minutes, hours, weekdays)]
    found = next_times(f"cron({fields[0]} {fields[1]} ? * {fields[2]} *)", "UTC", after, 5)
    sunday_first = [7, 1, 2, 3, 4, 5, 6]
    every = (after + timedelta(minutes=number) for number in range(1, (found[-1] - after) // timedelta(minutes=1) + 1))
    fitting = [
        time
        for time in every
        if time.minute in minutes and time.hour in hours and sunday_first.index(time.isoweekday()) + 1 in weekdays
    ]
    assert found == fitting


@pytest.mark.parametrize(("days", "times"), [(50_000, 1), (100_000, 0), (999_999_999, 0)])
def test_a_rate_ends_with_the_last_year_of_aws(days: int, times: int) -> None:
    found = next_times(f"rate({days} days)", "Asia/Tokyo", NEW_YEAR, 5, start=NEW_YEAR)
    assert found == [NEW_YEAR + timedelta(50_000)][:times]


def test_all_years_of_aws_are_accepted() -> None:
    assert read_cron("0 0 1 1 ? *").years == tuple(range(1970, 2200))
