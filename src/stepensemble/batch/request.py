"""What a run is asked: checked, and with the day that it is of."""

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
"""Stands for the date in a dataset's name."""


def parse_request(data: object) -> Request:
    """Read a request.

    Raises:
        InvalidPayload: with every problem it has.
    """
    problems = check_structure(data, Request)
    if problems:
        raise InvalidPayload(problems)
    request = msgspec.convert(data, Request)
    problems = [
        problem
        for problem in (
            _check_date(request.date),
            _check_moment(request.scheduled_at),
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
        request: it may say the date itself, or when the schedule meant to start it.
        started_at: when the execution started, ISO 8601, if neither is said.
    """
    if request.date is not None:
        return request.date
    moment = datetime.fromisoformat(request.scheduled_at or started_at)
    return moment.astimezone(ZoneInfo(request.timezone)).date().isoformat()


def locate_dataset(request: Request, day: str, bucket: str) -> str:
    """Return where a day's dataset lies.

    Args:
        request: that names it.
        day: `YYYY-MM-DD`.
        bucket: the data bucket, the only one that the batch may read.

    Raises:
        InvalidPayload: it is elsewhere.
    """
    # Who names a version means one object, whatever it is called.
    dataset = request.dataset.replace(DATE, day) if request.version_id is None else request.dataset
    places = tuple(f"s3://{bucket}/{folder}" for folder in (DATASETS, INBOX))
    if not dataset.startswith(places):
        remedy = f"put it under {places[0]}, where the batch may read"
        raise InvalidPayload([Problem("$.dataset", f"{show(dataset)} is elsewhere", remedy)])
    return dataset


def _check_date(given: str | None) -> Problem | None:
    try:
        day = date.fromisoformat("2000-01-01" if given is None else given)
    except ValueError:
        return Problem("$.date", f"{show(given)} is no day", "write YYYY-MM-DD")
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        return Problem(
            "$.date", f"{show(given)} is out of range", f"write a day of the years {FIRST_YEAR} to {LAST_YEAR}"
        )
    return None


def _check_moment(given: str | None) -> Problem | None:
    try:
        moment = datetime.fromisoformat("2000-01-01T00:00:00Z" if given is None else given)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        return Problem("$.scheduled_at", f"{show(given)} is no moment", "write it like 2026-03-01T05:00:00Z")
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        remedy = f"write one of the years {FIRST_YEAR} to {LAST_YEAR}, in which schedules are"
        return Problem("$.scheduled_at", f"{show(given)} is out of range", remedy)
    return None


def _check_timezone(given: str) -> Problem | None:
    try:
        ZoneInfo(given)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return Problem("$.timezone", f"{show(given)} is no timezone", "use an IANA name, such as Europe/Berlin")
    return None


def _check_output(given: str) -> Problem | None:
    if not given.startswith(RESULTS) or given.endswith("/"):
        remedy = f"begin it with {RESULTS}, and end it without a slash"
        return Problem("$.output", f"{show(given)} is no place for results", remedy)
    return None


def _check_labels(request: Request) -> Problem | None:
    if request.options.label_values is not None and request.options.label is None:
        remedy = "name the column of the labels as label, or leave it out"
        return Problem("$.options.label_values", "is given without a label", remedy)
    return None


def _check_version(request: Request) -> Problem | None:
    if request.version_id is not None and request.dataset.endswith("/"):
        return Problem("$.version_id", "is given of a folder", "name one object as the dataset, or leave it out")
    return None


def _check_spreadsheet(options: Options) -> Problem | None:
    if options.spreadsheet and options.format != "csv":
        remedy = 'add "format": "csv", or leave it out'
        return Problem("$.options.spreadsheet", f"is for results as CSV, and they are {show(options.format)}", remedy)
    return None
