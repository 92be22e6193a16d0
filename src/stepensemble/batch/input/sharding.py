"""Splits files into shards: slices of about the same size that begin and end with a record.

Text is read once, in bounded memory, because rows can only be numbered after those before them were counted. Of Parquet
only the footers are read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from encodings.aliases import aliases
from functools import partial
from itertools import chain, pairwise
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import polars as pl

from stepensemble.batch.documents import File, Options, Shard
from stepensemble.batch.input.column_names import EXACTLY, find_similar_name
from stepensemble.batch.input.csv_records import (
    BLANK,
    MAX_RECORD_BYTES,
    Records,
    RecordTooLong,
    find_lines,
    find_records,
)
from stepensemble.batch.input.datasets import read_head, read_schema, required_columns
from stepensemble.batch.input.parquet_footer import RowGroup
from stepensemble.batch.input.parquet_types import type_problems
from stepensemble.batch.input.text_stream import TextRefused, is_text_encoding, open_text
from stepensemble.core.errors import DatasetRefused
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.schema.manifest import Feature, ImageFeature, TensorFeature
from stepensemble.storage.objects import Bucket

ADD_OR_DEFAULT = 'add it, or set "missing" in the manifest'

HEADS_AT_ONCE = 8
"""Files whose beginnings are read at the same time."""

VALUE_BYTES, TEXT_BYTES = 8, 24
"""Minimum bytes of a Parquet value in memory: with a dictionary, a column of a million rows may be tiny in the file."""

SEPARATORS = (";", "\t", "|", ",")
"""Separators that are suggested if a header seems to be one column."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ShardedDataset:
    """A dataset that is split into shards.

    Attributes:
        files: with their numbers of rows.
        shards: in the order of the files; files without rows have none.
        columns: the union over files, in the order of their first occurrence. For JSON Lines, the keys in the first
            lines, and the required ones.
        notes: information that needs no change.
    """

    files: tuple[File, ...]
    shards: tuple[Shard, ...]
    columns: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of a file: from `start` to before `end`, in bytes or rows; the number of its first row, and its rows."""

    start: int
    end: int
    first_row: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Head:
    """What is known of a file before it is read: its columns and, for Parquet, their types and the row groups."""

    columns: tuple[str, ...]
    types: Mapping[str, pl.DataType] = field(default_factory=dict)
    row_groups: tuple[RowGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class _KeySearch:
    """Searches pieces of JSON for keys that the first lines of the files do not have."""

    names: tuple[str, ...]
    found: set[str] = field(default_factory=set)

    def search(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on pieces, and note the keys in them; a value with the same text counts as well."""
        forms = {
            name: {json.dumps(name).encode(), json.dumps(name, ensure_ascii=False).encode()} for name in self.names
        }
        longest = max(len(form) for some in forms.values() for form in some)
        before = b""
        for piece in pieces:
            text = before + piece
            missing = [name for name in self.names if name not in self.found]
            self.found.update(name for name in missing if any(form in text for form in forms[name]))
            before = text[-longest:]
            yield piece


class FindRecords(Protocol):
    """Finds the records at the beginning of a text."""

    def __call__(self, text: bytes, *, final: bool) -> Records:
        """See `find_records` and `find_lines`."""


def shard_dataset(
    bucket: Bucket, files: Sequence[File], options: Options, features: Sequence[Feature]
) -> ShardedDataset:
    """Check a dataset's files, and split them into shards.

    Args:
        bucket: that the files are stored in.
        files: as `find_files` returns them.
        options: of the run.
        features: of the release that predicts.

    Raises:
        DatasetRefused: lists all problems of options, files and columns. Problems that the beginnings of files show are
            found before any file is read to its end.
        DatasetChanged: a file has another version now.
    """
    _check_options(options)
    _refuse_images(features)
    wanted = required_columns(options, [feature.name for feature in features])
    heads = _for_each(files, lambda file: _read_head(bucket, file, options), HEADS_AT_ONCE)
    columns = tuple(dict.fromkeys(name for head in heads for name in head.columns))
    problems = [
        problem
        for file, head in zip(files, heads, strict=True)
        for problem in chain(type_problems(file, head.types, options, features), _name_problems(file, head, wanted))
    ]
    if columns and files[0].format != "jsonl":
        problems += _missing_problems(columns, options, features)
        if problems and files[0].format == "csv":
            problems += _separator_problems(columns, options)
    if problems:
        raise DatasetRefused(problems)
    keys = _KeySearch(tuple(name for name in wanted if name not in columns))
    head_of = dict(zip(files, heads, strict=True))
    slices = _for_each(files, lambda file: _slice_file(bucket, file, options, head_of[file], wanted, keys), 1)
    columns = (*columns, *(name for name in keys.names if name in keys.found))
    rows = [sum(piece.rows for piece in pieces) for pieces in slices]
    if any(rows) and (problems := _missing_problems(columns, options, features)):
        raise DatasetRefused(problems)
    pieces = [(index, piece) for index, pieces in enumerate(slices) for piece in pieces]
    return ShardedDataset(
        files=tuple(msgspec.structs.replace(file, rows=number) for file, number in zip(files, rows, strict=True)),
        shards=tuple(
            Shard(number, index, piece.start, piece.end, piece.first_row, piece.rows)
            for number, (index, piece) in enumerate(pieces)
        ),
        columns=columns,
        notes=tuple(_notes(files, heads, columns, wanted)) if any(rows) else (),
    )


def slice_text(
    pieces: Iterable[bytes], find: FindRecords, start: int, size: int, end: int | None = None
) -> Iterator[Slice]:
    """Split a text into slices of complete records, of at most `size` bytes unless a record is longer.

    The slices depend only on the text, not on its pieces. Each has at least one row. If the end of the text is known,
    they have about the same size, since the longest of them decides how long a run takes.

    Args:
        pieces: of the text.
        find: finds its records.
        start: position of the first piece.
        size: bytes of a slice.
        end: of the text, if it is known.

    Raises:
        RecordTooLong: there is a line of more than `MAX_RECORD_BYTES`.
    """
    begin = last = position = start
    first_row, rows = 1, 0
    text = b""
    for piece in chain(pieces, [None]):
        text = text + piece if piece is not None else text
        records = find(text, final=piece is None)
        if not len(records.ends):
            continue
        ends = records.ends + position
        counts = np.cumsum(records.fields != BLANK)
        done = 0
        while (fitting := int(np.searchsorted(ends, begin + _share(begin, end, size), "right"))) < len(ends):
            stop = int(ends[fitting - 1]) if fitting else last
            if stop == begin:  # a record longer than a slice
                fitting += 1
                stop = int(ends[fitting - 1])
            counted = int(counts[fitting - 1]) if fitting else 0
            rows += counted - done
            if rows:
                yield Slice(begin, stop, first_row, rows)
            begin, done = stop, counted
            first_row, rows = first_row + rows, 0
        rows += int(counts[-1]) - done
        last = int(ends[-1])
        position += records.length
        text = text[records.length :]
    if rows:
        yield Slice(begin, last, first_row, rows)


def _share(begin: int, end: int | None, size: int) -> int:
    """Return the bytes of a slice, if the rest of a text is split into as few equal slices as possible."""
    if end is None or end <= begin:
        return size
    return -(-(end - begin) // -(-(end - begin) // size))


def slice_rows(row_groups: Sequence[RowGroup], widths: Mapping[str, int], size: int) -> Iterator[Slice]:
    """Split row groups into slices of about `size` bytes; small groups are joined, large ones split evenly.

    Args:
        row_groups: of a file.
        widths: minimum bytes of a value in memory, for each column that is read.
        size: bytes of a slice.
    """
    first = start = 0
    for group in row_groups:
        read = [chunk for chunk in group.chunks if chunk.column in widths]
        needed = sum(max(chunk.uncompressed, group.rows * widths[chunk.column]) for chunk in read)
        most = max(1, size * group.rows // max(1, needed))
        if first > start and first - start + group.rows > most:
            yield Slice(start, first, start + 1, first - start)
            start = first
        first += group.rows
        if group.rows > most:
            bounds = np.linspace(start, first, -(-group.rows // most) + 1).astype(np.int64).tolist()
            for low, high in pairwise(bounds):
                yield Slice(low, high, low + 1, high - low)
            start = first
    if first > start:
        yield Slice(start, first, start + 1, first - start)


def choose_finder(options: Options, file: File) -> FindRecords:
    """Return the function that finds the records of a file."""
    return find_lines if file.format == "jsonl" else partial(find_records, separator=options.separator)


def _check_options(options: Options) -> None:
    problems = []
    if not is_text_encoding(options.encoding):
        near = suggest(options.encoding, aliases)
        problems.append(
            Problem(
                "encoding",
                f"{show(options.encoding)} is not an encoding",
                f"use one that Python has, such as utf-8{near}",
            )
        )
    if not options.separator.isascii() or options.separator in '"\r\n\0':
        problems.append(
            Problem(
                "separator",
                f"{show(options.separator)} cannot separate fields",
                "use one ASCII character other than a quote or a line end",
            )
        )
    if problems:
        raise DatasetRefused(problems)


def _for_each(files: Sequence[File], act: Callable[[File], T], at_once: int) -> list[T]:
    """Apply a function to every file; the error lists all files that cannot be read."""

    def attempt(file: File) -> T | Problem:
        try:
            return act(file)
        except TextRefused as refused:
            return Problem(file.name, refused.message, refused.remedy)
        except RecordTooLong:
            return Problem(file.name, f"has a line of more than {MAX_RECORD_BYTES:,} bytes", "write shorter lines")

    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(attempt, files))
    if problems := [outcome for outcome in outcomes if isinstance(outcome, Problem)]:
        raise DatasetRefused(problems)
    return [outcome for outcome in outcomes if not isinstance(outcome, Problem)]


def _read_head(bucket: Bucket, file: File, options: Options) -> _Head:
    if file.format == "parquet":
        types, footer = read_schema(bucket, file)
        return _Head(tuple(types), types, footer.row_groups if footer else ())
    return _Head(read_head(open_text(bucket, file, options), file, options).columns)


def _slice_file(
    bucket: Bucket,
    file: File,
    options: Options,
    head: _Head,
    wanted: Collection[str],
    keys: _KeySearch,
) -> list[Slice]:
    """Split one file, and search it for keys."""
    if file.format == "parquet":
        widths = {
            name: TEXT_BYTES if head.types[name] == pl.String else VALUE_BYTES for name in head.types if name in wanted
        }
        return list(slice_rows(head.row_groups, widths, options.shard_size))
    text = read_head(open_text(bucket, file, options), file, options).text
    pieces = keys.search(text.pieces) if file.format == "jsonl" and keys.names else text.pieces
    find = choose_finder(options, file)
    if not text.whole:
        return list(slice_text(pieces, find, text.start, options.shard_size, file.size))
    return [Slice(0, file.size, 1, part.rows) for part in slice_text(pieces, find, 0, sys.maxsize)]


def _name_problems(file: File, head: _Head, wanted: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for a column whose name nearly matches a missing one, which a default would silently replace."""
    others = [column for column in head.columns if column not in wanted]
    for name in wanted:
        if name not in head.columns and (near := find_similar_name(name, others)) is not None:
            yield Problem(
                file.name,
                f"column {show(near)} nearly has the name {show(name)}",
                EXACTLY,
            )


def _refuse_images(features: Sequence[Feature]) -> None:
    images = [feature.name for feature in features if isinstance(feature, ImageFeature)]
    if images:
        raise DatasetRefused(
            [
                Problem(f"feature {name}", "is an image, which a batch does not support", "send images in payloads")
                for name in images
            ]
        )


def _missing_problems(columns: Collection[str], options: Options, features: Sequence[Feature]) -> list[Problem]:
    """Return a problem for each required column that is missing, except for those of `_name_problems`."""
    roles = [("id", options.id), ("label", options.label), *(("keep", name) for name in options.keep)]
    wanted = required_columns(options, [feature.name for feature in features])
    others = [column for column in columns if column not in wanted]
    missing = [name for name in wanted if name not in columns and find_similar_name(name, others) is None]
    defaults = [feature.name for feature in features if getattr(feature, "missing", None) is not None]
    if defaults and len(defaults) == len(features) and set(defaults) <= set(missing):
        remedy = f"name the columns {enumerate_values(defaults)}"
        return [Problem("features", "none is a column of the dataset", remedy)]
    return [
        Problem(
            f"feature {feature.name}",
            "is not a column of the dataset",
            f"{'add it' if isinstance(feature, TensorFeature) else ADD_OR_DEFAULT}{suggest(feature.name, columns)}",
        )
        for feature in features
        if feature.name in missing and getattr(feature, "missing", None) is None
    ] + [
        Problem(
            role,
            f"{show(name)} is not a column of the dataset",
            f"use one of {enumerate_values(columns)}{suggest(name, columns)}",
        )
        for role, name in roles
        if name in missing
    ]


def _separator_problems(columns: Collection[str], options: Options) -> Iterator[Problem]:
    """Yield a problem for a header with one column that contains another separator."""
    header = next(iter(columns))
    other = next((one for one in SEPARATORS if one != options.separator and one in header), None)
    if len(columns) == 1 and other is not None:
        remedy = f"set the separator, which may be {show(other)}"
        yield Problem("separator", f"{show(options.separator)} is not in the header {show(header)}", remedy)


def _notes(
    files: Sequence[File], heads: Sequence[_Head], columns: Collection[str], wanted: Collection[str]
) -> Iterator[str]:
    if extra := [name for name in columns if name not in wanted]:
        yield f"not used: {enumerate_values(extra)}; --keep copies a column to the results"
    for name in wanted:
        if name not in columns:
            yield f"{show(name)} is in no file: its default in the manifest is used"
        elif files[0].format != "jsonl":
            without = [
                file.name for file, head in zip(files, heads, strict=True) if head.columns and name not in head.columns
            ]
            if without:
                yield f"{show(name)} is missing in {enumerate_values(without, most=3)}"
