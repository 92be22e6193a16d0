"""Lists the files of a dataset and reads their columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec
import polars as pl

from stepensemble.batch.documents import KINDS, File, Options, kind_of
from stepensemble.batch.input.csv_records import (
    BLANK,
    UNCLOSED,
    Records,
    RecordTooLong,
    find_records,
    has_bare_return,
    read_fields,
)
from stepensemble.batch.input.parquet_footer import Footer, fetch_chunks, read_footer
from stepensemble.batch.input.text_stream import FIRST_PIECE_BYTES, Text, TextRefused
from stepensemble.core.errors import DatasetMissing, DatasetRefused, ObjectMissing
from stepensemble.core.problems import Problem, enumerate_values, show
from stepensemble.storage.objects import Bucket, ObjectInfo

MAX_HEADER_BYTES = 1024 * 1024
"""Bytes of a CSV's header at most."""

DAMAGED = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""Exceptions of polars for damaged Parquet. Some damage ends the process, which fails the shard."""

LOCATION = re.compile(r"s3://([^/]+)/(.*)", re.DOTALL)
PARTITION = re.compile(r"(?:^|/)dt=([0-9]{4}-[0-9]{2}-[0-9]{2})/")


def parse_location(dataset: str) -> tuple[str, str]:
    """Return bucket and key of `s3://bucket/key`.

    Raises:
        DatasetMissing: the text does not have this form.
    """
    found = LOCATION.fullmatch(dataset)
    if found is None:
        raise DatasetMissing(f"{show(dataset)} is not a location in S3; write s3://bucket/key, or s3://bucket/prefix/")
    return found[1], found[2]


def find_files(
    bucket: Bucket, dataset: str, date: str | None = None, version_id: str | None = None
) -> tuple[File, ...]:
    """Find the files of a dataset, in the order of their keys.

    Files and folders whose names begin with `_` or `.` are skipped, as in Spark.

    Args:
        bucket: that the dataset is stored in.
        dataset: `s3://bucket/key` of a file, or of a prefix that ends with a slash.
        date: if files are stored in folders `dt=YYYY-MM-DD/`, only those of this date belong to the dataset.
        version_id: the version of the object, for a dataset that is one file; by default the latest.

    Returns:
        No file if all files are skipped, such as a `_SUCCESS` marker: an empty dataset.

    Raises:
        DatasetMissing: nothing is stored there.
        DatasetRefused: files have unknown or several formats.
    """
    key = parse_location(dataset)[1]
    if key and not key.endswith("/"):
        listed = [_head(bucket, key, version_id)]
        folder = key[: key.rfind("/") + 1]
    else:
        listed = sorted(bucket.list(key), key=lambda found: found.key)
        folder = key
        if not listed:
            raise DatasetMissing(f"nothing is stored under s3://{bucket.name}/{key}; upload the dataset's files there")
        if not (listed := [found for found in listed if not _is_skipped(found.key.removeprefix(folder))]):
            return ()
        listed = _of_date(bucket, listed, folder, date)
    problems = [
        Problem(
            found.key.removeprefix(folder),
            "has an unknown format",
            f"name it *{', *'.join(KINDS)}, or start its name with _ to skip it",
        )
        for found in listed
        if kind_of(found.key) is None
    ]
    if problems:
        raise DatasetRefused(problems)
    files = tuple(_describe(found, folder, version_id) for found in listed)
    first = {file.format: file.name for file in reversed(files)}
    if len(first) > 1:
        examples = " and ".join(f"{name} is {format_}" for format_, name in sorted(first.items()))
        raise DatasetRefused(
            [
                Problem(
                    folder or "/", f"has files of several formats: {examples}", "store each format under its own prefix"
                )
            ]
        )
    return files


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a text.

    Attributes:
        columns: the names in a CSV's header, or the keys in the first lines of JSON Lines; empty for an empty file.
        length: bytes of the header.
        text: the text after the header; its `start` is that of the first row.
    """

    columns: tuple[str, ...]
    length: int
    text: Text


def read_head(text: Text, file: File, options: Options) -> Head:
    """Read the beginning of a text; errors are those of `read_header`."""
    return read_keys(text) if file.format == "jsonl" else read_header(text, options.separator)


def read_header(text: Text, separator: str) -> Head:
    """Read the header of a CSV.

    Raises:
        TextRefused: the header is empty, too long, not closed or not in the encoding, or has a column twice.
    """
    begin, records = _read_first_record(text, separator)
    if not begin:
        return Head((), 0, text)
    length = int(records.ends[0])
    if records.fields[0] == BLANK:
        raise TextRefused("has an empty header", "name the columns in the first line")
    if records.fields[0] == UNCLOSED:
        raise TextRefused("has a header with a quoted name that is not closed", "close it")
    if has_bare_return(begin[:length], separator):
        raise _has_bare_returns()
    try:
        columns = tuple(field.decode(text.encoding) for field in read_fields(begin[:length], separator))
    except UnicodeDecodeError:
        remedy = f"write it in {text.encoding}, or set its encoding"
        raise TextRefused(f"has a header that is not {text.encoding}", remedy) from None
    if any("\0" in name for name in columns):
        raise TextRefused("has a header with zero bytes", "set its encoding, which may be utf-16-le or utf-16-be")
    reject_duplicates([name for name in columns if name])
    if not any(columns):
        raise TextRefused("has an empty header", "name the columns in the first line")
    rest = Text(chain([begin[length:]], text.pieces), text.encoding, text.start + length, text.whole)
    return Head(columns, length, rest)


def _read_first_record(text: Text, separator: str) -> tuple[bytes, Records]:
    """Read pieces of a text up to the end of its first record; return them, and the records in them."""
    begin = b""
    final = False
    while True:
        try:
            records = find_records(begin, separator, final=final, most=MAX_HEADER_BYTES)
        except RecordTooLong:
            if begin.count(b"\r") > begin.count(b"\r\n"):
                raise _has_bare_returns() from None
            message = f"has a header of more than {MAX_HEADER_BYTES:,} bytes"
            raise TextRefused(message, "write a shorter header") from None
        if final or len(records.ends):
            return begin, records
        piece = next(text.pieces, None)
        begin, final = begin + (piece or b""), piece is None


def reject_duplicates(columns: Sequence[str]) -> None:
    """Check that no two columns have the same name.

    Raises:
        TextRefused: lists names that occur more than once.
    """
    repeated = sorted(name for name, times in Counter(columns).items() if times > 1)
    if repeated:
        raise TextRefused(f"has several columns named {enumerate_values(repeated)}", "use each name once")


def _has_bare_returns() -> TextRefused:
    return TextRefused("has lines that end with a carriage return (CR) only", "end them with LF or CRLF")


def read_keys(text: Text) -> Head:
    """Read the keys in the first lines of JSON Lines; a line that is no object has none."""
    begin = next((piece for piece in text.pieces if piece), b"")
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    columns: dict[str, None] = {}
    for line in begin[:FIRST_PIECE_BYTES].split(b"\n"):
        try:
            columns.update(dict.fromkeys(decoder.decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return Head(tuple(columns), 0, Text(chain([begin], text.pieces), text.encoding, text.start, text.whole))


def read_schema(bucket: Bucket, file: File) -> tuple[dict[str, pl.DataType], Footer | None]:
    """Read the columns of a Parquet file; an empty file has none, and no footer.

    Raises:
        TextRefused: the file is not Parquet, or is damaged.
    """
    if not file.size:
        return {}, None
    footer = read_footer(bucket, file)
    reject_duplicates(footer.columns)
    with fetch_chunks(bucket, file, footer, ()) as path:
        try:
            return dict(pl.read_parquet_schema(path)), footer
        except DAMAGED:
            remedy = "write it again, without columns of intervals and list views, which are not supported"
            raise TextRefused("has a damaged footer, or a column of a type that is not supported", remedy) from None


def required_columns(options: Options, features: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that a run reads: features, id, label, and those that are copied to the results."""
    others = (options.id, options.label, *options.keep)
    return tuple(dict.fromkeys([*features, *(name for name in others if name is not None)]))


def _head(bucket: Bucket, key: str, version_id: str | None) -> ObjectInfo:
    try:
        return bucket.head(key, version_id)
    except ObjectMissing:
        folder = next(bucket.list(f"{key}/"), None)
        remedy = f"did you mean s3://{bucket.name}/{key}/?" if folder else "check bucket, key and permissions"
        raise DatasetMissing(f"s3://{bucket.name}/{key} does not exist; {remedy}") from None


def _is_skipped(name: str) -> bool:
    return name.endswith("/") or not name or any(part.startswith(("_", ".")) for part in name.split("/"))


def _of_date(bucket: Bucket, listed: Sequence[ObjectInfo], folder: str, date: str | None) -> list[ObjectInfo]:
    dates = [PARTITION.search(found.key.removeprefix(folder)) for found in listed]
    if date is None or not any(dates):
        return list(listed)
    of_date = [found for found, part in zip(listed, dates, strict=True) if part and part[1] == date]
    if not of_date:
        last = max(part[1] for part in dates if part)
        raise DatasetMissing(f"there is no dt={date}/ under s3://{bucket.name}/{folder}; the latest one is dt={last}/")
    return of_date


def _describe(found: ObjectInfo, folder: str, version_id: str | None) -> File:
    kind = kind_of(found.key)
    assert kind is not None, "unknown formats were rejected"  # noqa: S101 narrows the type
    return File(found.key, found.key.removeprefix(folder), found.size, found.version, *kind, version_id=version_id)
