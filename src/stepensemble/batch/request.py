"""Validates a request for a run, and finds its day and its dataset."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from stepensemble.batch.documents import Options, Request
from stepensemble.batch.schedule_times import FIRST_YEAR, LAST_YEAR
from stepensemble.core.errors import InvalidPayload
from stepensemble.core.problems import Problem, show
from stepensemble.core.validation.structure import check_structure
from stepensemble.storage.keys import DATASETS, INBOX, RESULTS

DATE = "{date}"
"""Placeholder for the date in a dataset's name."""


def parse_request(data: object) -> Request:
    """Parse and validate a request.

    Raises:
        InvalidPayload: lists every problem.
    """
    problems = check_structure(data, Request)
    if problems:
        raise InvalidPayload(problems)
    request = msgspec.convert(data, Request)
    problems = [
        problem
        for problem in (
            _check_date(request.date),
            _check_time(request.scheduled_at),
            _check_timezone(request.timezone),
            _check_output(request.output),
            _check_version(request),
            _check_labels(request),
            _check_spreadsheet(request.options),
        )
        if problem is not None
    ]
    if problems:
        raise InvalidPayload(problems)
    return request


def choose_date(request: Request, started_at: str) -> str:
    """Return the day of a run, `YYYY-MM-DD`.

    Args:
        request: may have the date, or the time for which the schedule started the run.
        started_at: when the execution started, ISO 8601; used if the request has neither.
    """
    if request.date is not None:
        return request.date
    time = datetime.fromisoformat(request.scheduled_at or started_at)
    return time.astimezone(ZoneInfo(request.timezone)).date().isoformat()


def locate_dataset(request: Request, day: str, bucket: str) -> str:
    """Return the location of a day's dataset.

    Args:
        request: names the dataset.
        day: `YYYY-MM-DD`.
        bucket: the data bucket, the only one that the batch may read.

    Raises:
        InvalidPayload: the dataset is in another bucket, or under another prefix.
    """
    # A version belongs to one object, even if its name has the placeholder in it.
    dataset = request.dataset.replace(DATE, day) if request.version_id is None else request.dataset
    allowed = tuple(f"s3://{bucket}/{folder}" for folder in (DATASETS, INBOX))
    if not dataset.startswith(allowed):
        remedy = f"store it under {allowed[0]}, which the batch may read"
        raise InvalidPayload([Problem("$.dataset", f"{show(dataset)} is not where the batch may read", remedy)])
    return dataset


def _check_date(text: str | None) -> Problem | None:
    try:
        day = date.fromisoformat("2000-01-01" if text is None else text)
    except ValueError:
        return Problem("$.date", f"{show(text)} is not a date", "write YYYY-MM-DD")
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        return Problem(
            "$.date", f"{show(text)} is out of range", f"write a day of the years {FIRST_YEAR} to {LAST_YEAR}"
        )
    return None


def _check_time(text: str | None) -> Problem | None:
    try:
        time = datetime.fromisoformat("2000-01-01T00:00:00Z" if text is None else text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        return Problem("$.scheduled_at", f"{show(text)} is not a time", "write it like 2026-03-01T05:00:00Z")
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        remedy = f"write a time of the years {FIRST_YEAR} to {LAST_YEAR}, which schedules have"
        return Problem("$.scheduled_at", f"{show(text)} is out of range", remedy)
    return None


def _check_timezone(text: str) -> Problem | None:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return Problem("$.timezone", f"{show(text)} is not a timezone", "use an IANA name, such as Europe/Berlin")
    return None


def _check_output(text: str) -> Problem | None:
    if not text.startswith(RESULTS) or text.endswith("/"):
        remedy = f"start it with {RESULTS}, and leave out a slash at the end"
        return Problem("$.output", f"{show(text)} is not a prefix for results", remedy)
    return None


def _check_labels(request: Request) -> Problem | None:
    if request.options.label_values is not None and request.options.label is None:
        remedy = "set label to the column of the labels, or leave label_values out"
        return Problem("$.options.label_values", "is set without a label", remedy)
    return None


def _check_version(request: Request) -> Problem | None:
    if request.version_id is not None and request.dataset.endswith("/"):
        return Problem("$.version_id", "is set for a folder", "set dataset to one object, or leave version_id out")
    return None


def _check_spreadsheet(options: Options) -> Problem | None:
    if options.spreadsheet and options.format != "csv":
        remedy = 'add "format": "csv", or leave spreadsheet out'
        return Problem("$.options.spreadsheet", f"is for CSV results, and the format is {show(options.format)}", remedy)
    return None
