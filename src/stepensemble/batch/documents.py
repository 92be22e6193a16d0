"""The documents of a run: its request, plan, shards and result. They are stored in S3 and pass the state machine.

A run's name is a digest of everything that decides its results: the dataset's files and their versions, the release,
the date, the prefix of the results, and the options. Two requests with the same name are one run.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from stepensemble.core.releases.release import digest_of

SHARD_BYTES = 16 * 1024 * 1024
RUN_DIGITS = 16
"""Hexadecimal digits of the digest that names a run."""

SCHEMA_VERSION = 2
"""Version of the plan, the shard reports and the summary; `stored_documents` reads the version before, too."""

DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"

Format = Literal["csv", "jsonl", "parquet"]
Compression = Literal["none", "gzip"]

LabelValues = Literal["names", "indexes"]
"""What labels are: the names of the task's classes, or their indexes, counted from 0."""

KINDS: dict[str, tuple[Format, Compression]] = {
    ".csv": ("csv", "none"),
    ".csv.gz": ("csv", "gzip"),
    ".jsonl": ("jsonl", "none"),
    ".ndjson": ("jsonl", "none"),
    ".jsonl.gz": ("jsonl", "gzip"),
    ".ndjson.gz": ("jsonl", "gzip"),
    ".parquet": ("parquet", "none"),
}
"""File format and compression by the ending of a file's name."""


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """How a dataset is read and its results are written.

    Attributes:
        id: the column whose values name the rows; by default a row is named by its file and number.
        keep: columns that are copied to the results.
        label: the column with the ground truth, where it is known: the class's name or index, or the number.
        label_values: whether the labels are the classes' names or their indexes; by default Plan decides, if only one
            of the two is possible.
        format: of the results.
        encoding: of CSV and JSON Lines, by Python's name; a byte order mark takes precedence.
        separator: of CSV: one ASCII character.
        shard_size: approximate bytes of input per shard.
        max_rejected: share of rows that may be rejected; with more of them the run fails.
        max_failed_shards: how many shards may fail; with more of them the run fails.
        spreadsheet: whether text in CSV results that a spreadsheet would compute as a formula gets an apostrophe in
            front.
    """

    id: str | None = None
    keep: tuple[str, ...] = ()
    label: str | None = None
    format: Format = "parquet"
    encoding: str = "utf-8"
    separator: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    shard_size: Annotated[int, Meta(ge=1024)] = SHARD_BYTES
    max_rejected: Annotated[float, Meta(ge=0, le=1)] = 0.5
    max_failed_shards: Annotated[int, Meta(ge=0)] = 0
    label_values: LabelValues | None = None
    spreadsheet: bool = False


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """The input of the batch's state machine.

    Attributes:
        dataset: `s3://bucket/key`, or a prefix that ends with a slash; `{date}` in it stands for the date.
        version_id: the version of the object, for a dataset that is one object; by default the latest.
        date: the day of the run; by default the day of `scheduled_at` in `timezone`, or of the execution's start.
        scheduled_at: the time for which the schedule started the run, ISO 8601.
        release: digest, or its beginning, of the release that predicts; by default the current one.
        output: prefix in the data bucket under which results are stored.
    """

    dataset: str
    date: Annotated[str, Meta(pattern=DATE)] | None = None
    scheduled_at: str | None = None
    timezone: str = "UTC"
    release: str | None = None
    output: str = "results"
    options: Options = Options()
    version_id: str | None = None


class File(Struct, frozen=True):
    """A file of a dataset.

    Attributes:
        name: the name in results and rejected rows: the key without the prefix that all files share.
        version: the ETag, which changes with the content.
        rows: number of rows; None before the dataset was split into shards.
        version_id: the version of the object that is read, if the request names one; otherwise the latest.
    """

    key: str
    name: str
    size: int
    version: str
    format: Format
    compression: Compression = "none"
    rows: int | None = None
    version_id: str | None = None


class Shard(Struct, frozen=True):
    """A slice of one file.

    Attributes:
        number: counted from 0 over the whole dataset.
        file: index of the file in the plan.
        start, end: bytes of a text file, headers excluded; rows of a Parquet file; 0 and the file's size for a text
            that cannot be split (gzip, UTF-16 and the like).
        first_row: number in the file of the shard's first row, counted from 1 without headers and blank lines.
        rows: number of rows, as counted when the dataset was split; None if they were not counted.
    """

    number: int
    file: int
    start: int
    end: int
    first_row: int
    rows: int | None


class BinEdges(Struct, frozen=True):
    """Ascending edges of histograms, of the prediction and of features by name; without edges there is none."""

    prediction: tuple[float, ...] = ()
    features: dict[str, tuple[float, ...]] = {}


class RunPlan(Struct, frozen=True):
    """The plan of a run, written once before its first shard and read by every shard.

    Attributes:
        run: the run's name.
        execution: ARN of the execution that planned it.
        ensemble: the release's name.
        release: the release's digest.
        slots: the placement: which score function serves which member.
        dataset, date, output: resolved from the request.
        files: all files, in the order of their keys.
        columns: the dataset's columns, in order: the union over files.
        shards: how many there are.
        edges: of the histograms by which drift is measured; taken from the previous run if there is one.
        previous_summary: key of the summary of the previous run; None if there is none.
        notes: information about the columns that needs no change.
        label_values: how all shards read the labels; None without labels, and for a regression.
    """

    run: str
    execution: str
    started_at: str
    ensemble: str
    release: str
    slots: dict[str, str]
    dataset: str
    date: str
    output: str
    options: Options
    files: tuple[File, ...]
    columns: tuple[str, ...]
    shards: int
    edges: BinEdges = BinEdges()
    previous_summary: str | None = None
    notes: tuple[str, ...] = ()
    label_values: LabelValues | None = None
    schema_version: int = SCHEMA_VERSION


class ShardFailure(Struct, frozen=True):
    """Why an attempt at a shard failed: the name of an error of this package or of Step Functions, and its cause."""

    error: str
    cause: str


class Result(Struct, frozen=True):
    """The result of a complete run: the output of the batch's state machine.

    Attributes:
        rows_in: all rows: `rows_out`, `rows_rejected` and `rows_failed` together.
        rows_failed: rows of failed shards, as far as they were counted.
        results: `s3://bucket/prefix/` of the files with the predictions.
        rejected: the same for the rejected rows; None if there are none.
        report, summary: `s3://bucket/key`.
    """

    run: str
    date: str
    release: str
    rows_in: int
    rows_out: int
    rows_rejected: int
    needs_review: int
    results: str
    rejected: str | None
    report: str
    summary: str
    rows_failed: int = 0
    status: Literal["SUCCEEDED"] = "SUCCEEDED"


def kind_of(key: str) -> tuple[Format, Compression] | None:
    """Return a file's format and compression by the ending of its name; None if the ending is unknown."""
    name = key.lower()
    return next((kind for ending, kind in KINDS.items() if name.endswith(ending)), None)


def name_run(files: tuple[File, ...], release: str, date: str, output: str, options: Options) -> str:
    """Return the name of a run: a digest of everything that decides its results.

    Args:
        files: of the dataset, in the order of their keys.
        release: digest of the release that predicts.
        date: `YYYY-MM-DD`.
        output: prefix of the results.
        options: of the request.
    """
    known = [[file.key, file.version] for file in files]
    chosen = msgspec.to_builtins(options)
    # Options that were added later are left out at their defaults, so that earlier runs keep their names.
    if options.label_values is None:
        del chosen["label_values"]
    if not options.spreadsheet:
        del chosen["spreadsheet"]
    decisive = msgspec.json.encode([known, release, date, output, chosen], order="sorted")
    return digest_of(decisive)[:RUN_DIGITS]
