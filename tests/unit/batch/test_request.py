from __future__ import annotations

from typing import Any

import pytest

from stepensemble.batch.documents import File, Options, Request, name_run
from stepensemble.batch.request import choose_date, locate_dataset, parse_request
from stepensemble.core.errors import InvalidPayload

STARTED = "2026-03-01T23:30:00.000Z"
DATASET = "s3://data/datasets/dt={date}/"
MOMENTS = [
    *["", "now", "2026-03-01", "2026-03-01T25:00:00Z", "2026-02-30T05:00:00Z", "<aws.scheduler.scheduled-time>"],
    *[
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:00",
        "1969-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z",
    ],
]


def problems(**given: Any) -> list[str]:
    with pytest.raises(InvalidPayload) as refused:
        parse_request({"dataset": DATASET, **given})
    return [problem.path for problem in refused.value.problems]


def test_only_the_dataset_is_required_in_a_request() -> None:
    assert parse_request({"dataset": DATASET}) == Request(DATASET, options=Options())


def test_later_options_do_not_change_the_names_of_runs_without_them() -> None:
    files = (File("a", "a", 1, "v", "csv"),)
    names = [
        name_run(files, "r", "2026-03-01", "results", Options(keep=("x",), max_rejected=0.25, spreadsheet=spreadsheet))
        for spreadsheet in (False, True)
    ]
    assert names[0] == "39736decd4d0c980"  # as it was before there was that option
    assert names[1] != names[0]


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"date": "2026-02-30"}, ["$.date"]),
        ({"date": "today"}, ["$.date"]),
        ({"date": "9999-12-31"}, ["$.date"]),
        ({"scheduled_at": "five"}, ["$.scheduled_at"]),
        ({"scheduled_at": "2026-03-01T05:00:00"}, ["$.scheduled_at"]),  # of which timezone?
        *(({"scheduled_at": given, "timezone": "Asia/Tokyo"}, ["$.scheduled_at"]) for given in MOMENTS),
        ({"timezone": "Europe/Berlyn"}, ["$.timezone"]),
        ({"timezone": "../etc/passwd"}, ["$.timezone"]),
        ({"output": "elsewhere"}, ["$.output"]),
        ({"output": "results/"}, ["$.output"]),
        ({"options": {"shard_size": 1}}, ["$.options.shard_size"]),
        ({"options": {"spreadsheet": True}}, ["$.options.spreadsheet"]),
        ({"option": {}}, ["$.option"]),
        ({"date": "2026-02-30", "timezone": "Mars"}, ["$.date", "$.timezone"]),
        ({"version_id": "v1"}, ["$.version_id"]),  # a folder has none
        ({"dataset": "s3://data/inbox/a.csv", "version_id": 1}, ["$.version_id"]),
    ],
)
def test_problems_are_reported_by_path(given: dict[str, Any], paths: list[str]) -> None:
    assert problems(**given) == paths


@pytest.mark.parametrize(
    ("given", "day"),
    [
        ({}, "2026-03-01"),  # the execution's start, in UTC
        ({"timezone": "Europe/Berlin"}, "2026-03-02"),  # 00:30 there
        ({"timezone": "America/New_York", "scheduled_at": "2026-03-01T04:00:00Z"}, "2026-02-28"),  # 23:00 there
        ({"timezone": "Europe/Berlin", "scheduled_at": "2026-03-01T04:00:00Z", "date": "2025-12-31"}, "2025-12-31"),
    ],
)
def test_the_day_is_that_of_the_scheduled_time_in_the_timezone(given: dict[str, Any], day: str) -> None:
    assert choose_date(parse_request({"dataset": DATASET, **given}), STARTED) == day


def test_the_date_replaces_its_placeholder_in_the_dataset() -> None:
    assert locate_dataset(Request(DATASET), "2026-03-01", "data") == "s3://data/datasets/dt=2026-03-01/"


def test_a_dataset_with_a_version_is_one_object_without_a_placeholder() -> None:
    request = parse_request({"dataset": "s3://data/inbox/{date}.csv", "version_id": "v1"})
    assert request == Request("s3://data/inbox/{date}.csv", version_id="v1")
    assert locate_dataset(request, "2026-03-01", "data") == "s3://data/inbox/{date}.csv"


@pytest.mark.parametrize("dataset", ["s3://other/datasets/a.csv", "s3://data/records/a.csv", "datasets/a.csv"])
def test_a_dataset_outside_the_allowed_prefixes_is_rejected(dataset: str) -> None:
    with pytest.raises(InvalidPayload, match="store it under s3://data/datasets/"):
        locate_dataset(Request(dataset), "2026-03-01", "data")
