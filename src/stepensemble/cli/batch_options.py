"""Parse the options of `ensemble batch`."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import typer

UNITS = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
SMALLEST_SHARD = 1024
"""Bytes."""


def read_days(day: str | None, first: str | None, last: str | None, now: datetime) -> list[str]:
    """Return the days to run, as YYYY-MM-DD: a single one, or all from the first to the last.

    Args:
        day: the value of --date.
        first: the value of --from.
        last: the value of --to.
        now: when the command was started, in UTC; its day is the default.

    Raises:
        typer.BadParameter: a value is not a day, or the options contradict each other.
    """
    if (first is None) != (last is None):
        raise typer.BadParameter(
            "--from and --to belong together; give both, or --date for one day", param_hint="--from"
        )
    if first is None or last is None:
        return [f"{now.date()}" if day is None else f"{_read_day(day, '--date')}"]
    if day is not None:
        raise typer.BadParameter(
            "--date is one day, and --from and --to are several; leave one out", param_hint="--date"
        )
    begin, end = _read_day(first, "--from"), _read_day(last, "--to")
    if end < begin:
        raise typer.BadParameter(f"{end} is before {begin}, the first day; give a later day", param_hint="--to")
    return [f"{begin + timedelta(days=number)}" for number in range((end - begin).days + 1)]


def _read_day(text: str, hint: str) -> date:
    from stepensemble.batch.schedule_times import FIRST_YEAR, LAST_YEAR

    try:
        day = datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise typer.BadParameter(
            f"{text} is not a day; write YYYY-MM-DD, such as 2026-03-01", param_hint=hint
        ) from None
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        message = f"{text} is out of range; give a day in the years {FIRST_YEAR} to {LAST_YEAR}"
        raise typer.BadParameter(message, param_hint=hint)
    return day


def read_moment(text: str | None) -> datetime:
    """Return a time; without an offset it is in UTC, and None is now.

    Raises:
        typer.BadParameter: the text is not a time, or its year is out of range.
    """
    from stepensemble.batch.schedule_times import FIRST_YEAR, LAST_YEAR

    try:
        moment = datetime.now(UTC) if text is None else datetime.fromisoformat(text)
    except ValueError:
        message = f"{text} is not a time; write ISO 8601, such as 2026-03-01T05:00:00Z"
        raise typer.BadParameter(message, param_hint="--at") from None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        message = f"{text} is out of range; give a time in the years {FIRST_YEAR} to {LAST_YEAR}"
        raise typer.BadParameter(message, param_hint="--at")
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def read_size(text: str) -> int:
    """Return a number of bytes; a KB has 1,024.

    Raises:
        typer.BadParameter: the text is not a size, or the size is too small for a shard.
    """
    found = re.fullmatch(r"([0-9]+)\s*([KMG]?B?)", text.strip().upper())
    size = int(found[1]) * UNITS[found[2] if found[2] in UNITS else f"{found[2]}B"] if found else 0
    if size < SMALLEST_SHARD:
        message = f"{text} is not a size of {SMALLEST_SHARD:,} bytes or more; write it like 512KB or 16MB"
        raise typer.BadParameter(message, param_hint="--shard-size")
    return size


def read_share(text: str) -> float:
    """Return a share, 0 to 1, from a number or a percentage.

    Raises:
        typer.BadParameter: the text is not a share.
    """
    number, percent = (text.strip()[:-1], 100) if text.strip().endswith("%") else (text, 1)
    share = -1.0
    with suppress(ValueError):
        share = float(number) / percent
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text} is not a share; write it like 0.05 or 5%", param_hint="--max-rejected")
    return share


def check_encoding(name: str) -> str:
    """Return the name of an encoding if Python knows it.

    Raises:
        typer.BadParameter: Python has no encoding of that name.
    """
    try:
        codecs.lookup(name)
    except LookupError:
        message = f"{name} is not an encoding; use a name that Python knows, such as utf-8, latin-1 or utf-16"
        raise typer.BadParameter(message, param_hint="--encoding") from None
    return name


def read_separator(text: str) -> str:
    """Return the character between the fields of CSV; a tab may be written as `tab`.

    Raises:
        typer.BadParameter: the text is not one ASCII character, or is a quote or a line end.
    """
    character = "\t" if text in ("tab", "\\t") else text
    if len(character) != 1 or not character.isascii() or character in '"\r\n':
        raise typer.BadParameter(
            f"{text} is not a separator; give one ASCII character, or tab", param_hint="--separator"
        )
    return character
