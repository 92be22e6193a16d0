"""What a run is: asked, planned, cut into shards. These documents lie in S3 and travel through the state machine.

A run is named by what decides its results: the dataset's files and their versions, the release, the date, and the
options. Asked for twice, it is one run.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from stepensemble.core.releases.release import digest_of

SHARD_BYTES = 16 * 1024 * 1024
RUN_DIGITS = 16
"""Of the digest that names a run."""

DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"

Format = Literal["csv", "jsonl", "parquet"]
Compression = Literal["none", "gzip"]

LabelValues = Literal["names", "indexes"]
"""What labels of classes are: their names, or their places among the task's classes, counted from 0."""

KINDS: dict[str, tuple[Format, Compression]] = {
    ".csv": ("csv", "none"),
    ".csv.gz": ("csv", "gzip"),
    ".jsonl": ("jsonl", "none"),
    ".ndjson": ("jsonl", "none"),
    ".jsonl.gz": ("jsonl", "gzip"),
    ".ndjson.gz": ("jsonl", "gzip"),
    ".parquet": ("parquet", "none"),
}
"""How the names of a dataset's files end."""


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """How a dataset is read and its results are written.

    Attributes:
        id: the column whose values name the rows; by default a row is named by its file and number.
        keep: columns that are carried through to the results.
        label: the column that holds the truth, where it is known: the class's name or index, or the number.
        label_values: whether the labels are the classes' names or their indexes; by default Plan decides, where only
            one of them can be right.
        format: of the results.
        encoding: of CSV and JSON Lines, by Python's name; a byte order mark is always taken for what it is.
        separator: of CSV: one ASCII character.
        shard_size: bytes of input that one shard has, about.
        max_rejected: share of rows that may be rejected; with more of them the run fails.
        max_failed_shards: how many shards may have no answer; with more of them the run fails.
        spreadsheet: whether text in CSV results that a spreadsheet takes for a formula has an apostrophe in front.
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
        version_id: of a dataset that is one object, which version of it; by default the latest.
        date: which day's run it is; by default the day of `scheduled_at` in `timezone`, else of the execution's start.
        scheduled_at: when the schedule meant to start it, ISO 8601.
        release: digest, or its beginning, of the release that answers; by default the current one.
        output: prefix in the data bucket under which results go.
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
        name: as results and rejected rows call it: its key without what all files' keys begin with.
        version: what changes with its content: its ETag.
        rows: how many; None before the dataset was cut.
        version_id: which version of the object is read, where the request names one; else the latest.
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
        start, end: of a text file the bytes, headers excluded; of Parquet the rows; of a text that cannot be cut (gzip,
            UTF-16 and the like) 0 and the file's size.
        first_row: number in the file of the shard's first row; rows are counted from 1, headers and blank lines not.
        rows: how many there are, as counted when it was cut; None of what was not counted.
    """

    number: int
    file: int
    start: int
    end: int
    first_row: int
    rows: int | None


class RunPlan(Struct, frozen=True):
    """A run before its first shard; written once, read by every shard.

    Attributes:
        run: its name.
        execution: ARN of the one that planned it.
        ensemble: the release's name.
        release: its digest.
        slots: which score function serves which member: the placement.
        dataset, date, output: resolved.
        files: all, in the order of their keys.
        columns: of the dataset, in order: the union over files.
        shards: how many.
        edges: of the histograms by which drift is measured, by feature, and of the prediction by the empty name; taken
            from the run before where there is one.
        previous: key of the summary of the run before; None where there is none.
        notes: what a person may want to know of the columns, and need not change.
        label_values: how all shards read the labels; None without labels, and of a regression.
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
    edges: dict[str, tuple[float, ...]] = {}
    previous: str | None = None
    notes: tuple[str, ...] = ()
    label_values: LabelValues | None = None


class ShardFailure(Struct, frozen=True):
    """Why a shard has no answer in an attempt: a name from the error tree or from Step Functions, and its cause."""

    error: str
    cause: str


class Result(Struct, frozen=True):
    """What a run came to, once it is whole: the output of the batch's state machine.

    Attributes:
        rows_in: all of them: `rows_out`, `rows_rejected` and `rows_failed` together.
        rows_failed: of shards without an answer, as far as they were counted.
        results: `s3://bucket/prefix/` of the files with the answers.
        rejected: the same of the rejected rows; None where there are none.
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
    """Return how a file is written, by how its name ends; None where that is unknown."""
    name = key.lower()
    return next((kind for ending, kind in KINDS.items() if name.endswith(ending)), None)


def name_run(files: tuple[File, ...], release: str, date: str, output: str, options: Options) -> str:
    """Return the name of a run: a digest of everything that decides its results.

    Args:
        files: of the dataset, in the order of their keys.
        release: digest of the release that answers.
        date: `YYYY-MM-DD`.
        output: prefix of the results.
        options: all of them.
    """
    known = [[file.key, file.version] for file in files]
    chosen = msgspec.to_builtins(options)
    # Runs from before there were these options keep their names.
    if options.label_values is None:
        del chosen["label_values"]
    if not options.spreadsheet:
        del chosen["spreadsheet"]
    decisive = msgspec.json.encode([known, release, date, output, chosen], order="sorted")
    return digest_of(decisive)[:RUN_DIGITS]
