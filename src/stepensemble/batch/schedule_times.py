"""Computes when a schedule of EventBridge Scheduler starts its target next.

Expressions are `rate(value unit)`, `at(yyyy-mm-ddThh:mm:ss)` and `cron(minutes hours day-of-month month day-of-week
year)`, in the schedule's timezone (https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html). A time
that the clocks skip in spring is skipped, a time that they show twice in autumn counts once, and a day of a rate is 24
hours.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count, islice
from zoneinfo import ZoneInfo

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
FIRST_YEAR, LAST_YEAR = 1970, 2199

IsDay = Callable[[date], bool]


class UnknownExpression(ValueError):
    """The expression is not one that EventBridge Scheduler accepts."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A `cron` expression; `is_day` returns whether a date matches day of month and day of week."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    years: tuple[int, ...]
    is_day: IsDay


def next_times(
    expression: str,
    timezone: str,
    after: datetime,
    many: int,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[datetime]:
    """Return the next times of a schedule, in its timezone.

    Args:
        expression: `cron(…)`, `rate(…)` or `at(…)`.
        timezone: an IANA name.
        after: all returned times are later.
        many: how many times at most; there are fewer if the schedule ends.
        start: the schedule's start date, if it has one; for a rate without one, the time of its creation.
        end: its end date, if it has one.

    Raises:
        UnknownExpression: with the problem.
    """
    zone = ZoneInfo(timezone)
    found = re.fullmatch(r"(cron|rate|at)\((.*)\)", expression.strip())
    if found is None:
        raise UnknownExpression(f"{expression!r} is not cron(…), rate(…) or at(…)")
    kind, inner = found.groups()
    if kind == "at":
        times = iter([_read_moment(inner, zone)])
    elif kind == "rate":
        times = _count_rate(_read_rate(inner), start or after, after)
    else:
        times = _walk(read_cron(inner), zone, after.astimezone(zone).date())
    wanted = (time for time in times if time > after and (start is None or time >= start))
    bounded = _until(wanted, end)
    return [time.astimezone(zone) for time in islice(bounded, many)]


def read_cron(fields: str) -> Cron:
    """Parse the six fields of a `cron` expression.

    Raises:
        UnknownExpression: with the field.
    """
    parts = fields.split()
    if len(parts) != 6:
        raise UnknownExpression(f"cron({fields}) has {len(parts)} fields; write six, with the year")
    minutes, hours, days, months, weekdays, years = parts
    if (days == "?") == (weekdays == "?"):
        raise UnknownExpression(f'cron({fields}): write "?" for one of day-of-month and day-of-week, and only for one')
    return Cron(
        minutes=_read_numbers(minutes, "minutes", 0, 59),
        hours=_read_numbers(hours, "hours", 0, 23),
        months=_read_numbers(months, "month", 1, 12, MONTHS),
        years=_read_numbers(years, "year", FIRST_YEAR, LAST_YEAR),
        is_day=_read_weekdays(weekdays) if days == "?" else _read_days(days),
    )


def _until(times: Iterator[datetime], end: datetime | None) -> Iterator[datetime]:
    for time in times:
        if end is not None and time > end:
            return
        yield time


def _read_moment(text: str, zone: ZoneInfo) -> datetime:
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=zone)
    except ValueError:
        raise UnknownExpression(f"at({text}): write at(yyyy-mm-ddThh:mm:ss)") from None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise UnknownExpression(f"at({text}): write a year from {FIRST_YEAR} to {LAST_YEAR}")
    return moment


def _read_rate(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]*)\s+(minute|hour|day)s?", text)
    if found is None:
        raise UnknownExpression(f"rate({text}): write a number and minutes, hours or days")
    try:
        return timedelta(**{f"{found[2]}s": int(found[1])})
    except (OverflowError, ValueError):
        raise UnknownExpression(f"rate({text}): write a smaller number") from None


def _count_rate(step: timedelta, start: datetime, after: datetime) -> Iterator[datetime]:
    passed = max(0, (after - start) // step)
    with suppress(OverflowError):  # there are no times after the end of the calendar
        for number in count(passed):
            time = start.astimezone(UTC) + step * number
            if time.year > LAST_YEAR:
                return
            yield time


def _walk(cron: Cron, zone: ZoneInfo, first: date) -> Iterator[datetime]:
    """Yield every time from the beginning of a day on."""
    for year in cron.years:
        for month in cron.months:
            if (year, month) < (first.year, first.month):
                continue
            for day in range(1, monthrange(year, month)[1] + 1):
                today = date(year, month, day)
                if today >= first and cron.is_day(today):
                    yield from _walk_day(cron, zone, today)


def _walk_day(cron: Cron, zone: ZoneInfo, today: date) -> Iterator[datetime]:
    for hour in cron.hours:
        for minute in cron.minutes:
            shown = datetime(today.year, today.month, today.day, hour, minute, tzinfo=zone)
            known = shown.astimezone(UTC).astimezone(zone)
            if known.replace(tzinfo=None) == shown.replace(tzinfo=None):  # otherwise the clocks skip this time
                yield shown.astimezone(UTC)


def _read_days(text: str) -> IsDay:
    """Parse day-of-month: numbers, `L` for the last day, `3W` for the weekday nearest to the third, `LW`."""
    plain: list[str] = []
    special: list[IsDay] = []
    for part in text.split(","):
        if part == "L":
            special.append(lambda day: day.day == _last(day))
        elif part == "LW":
            special.append(lambda day: day.day == _nearest_working_day(day, _last(day)))
        elif re.fullmatch(r"[0-9]+W", part):
            (number,) = _read_numbers(part[:-1], "day-of-month", 1, 31)
            special.append(lambda day, number=number: day.day == _nearest_working_day(day, number))  # type: ignore[misc]
        else:
            plain.append(part)
    numbers = _read_numbers(",".join(plain), "day-of-month", 1, 31) if plain else ()
    return lambda day: day.day in numbers or any(is_day(day) for is_day in special)


def _read_weekdays(text: str) -> IsDay:
    """Parse day-of-week, Sunday is 1: numbers, names, `6L` for the last Friday, `3#2` for the second Tuesday."""
    found = re.fullmatch(r"(\w+)#([1-5])", text)
    if found is not None:
        (weekday,) = _read_numbers(found[1], "day-of-week", 1, 7, WEEKDAYS)
        number = int(found[2])
        return lambda day: _weekday(day) == weekday and (day.day - 1) // 7 + 1 == number
    plain: list[str] = []
    last: set[int] = set()
    for part in text.split(","):
        if len(part) > 1 and part.endswith("L"):
            last.update(_read_numbers(part[:-1], "day-of-week", 1, 7, WEEKDAYS))
        else:
            plain.append("7" if part == "L" else part)
    numbers = _read_numbers(",".join(plain), "day-of-week", 1, 7, WEEKDAYS) if plain else ()
    return lambda day: _weekday(day) in numbers or (_weekday(day) in last and day.day > _last(day) - 7)


def _read_numbers(text: str, field: str, least: int, most: int, names: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Parse a list of numbers, ranges and increments; the names are those of the numbers from `least` on."""
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/([0-9]+))?", part)
        if found is None:
            raise UnknownExpression(f"{field}: {part!r} is not a number, range or increment")
        first, last, step = found.groups()
        begin = least if first == "*" else _read_number(first, field, least, most, names)
        end = begin if last is None else _read_number(last, field, least, most, names)
        if first == "*" or (last is None and step is not None):
            end = most
        if end < begin:
            raise UnknownExpression(f"{field}: {part!r} ends before it begins")
        if step is not None and int(step) == 0:
            raise UnknownExpression(f"{field}: {part!r} has an increment of 0; write 1 or more")
        numbers.update(range(begin, end + 1, int(step or 1)))
    return tuple(sorted(numbers))


def _read_number(text: str, field: str, least: int, most: int, names: tuple[str, ...]) -> int:
    if text.upper() in names:
        return names.index(text.upper()) + least
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise UnknownExpression(f"{field}: {text!r} is not from {least} to {most}")
    return int(text)


def _last(day: date) -> int:
    return monthrange(day.year, day.month)[1]


def _weekday(day: date) -> int:
    """Return the day of the week as AWS counts it: Sunday is 1."""
    return day.isoweekday() % 7 + 1


def _nearest_working_day(day: date, number: int) -> int | None:
    """Return the weekday, Monday to Friday, of the same month nearest to a day; None if the month has no such day."""
    last = _last(day)
    if number > last:
        return None
    weekday = day.replace(day=number).isoweekday()
    if weekday == 6:
        return number - 1 if number > 1 else number + 2
    if weekday == 7:
        return number + 1 if number < last else number - 2
    return number
