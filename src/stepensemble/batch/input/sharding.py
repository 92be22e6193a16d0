"""From files to shards: slices of about the same size that begin and end with a record.

Text is read through once, in bounded memory, because rows can only be numbered when those before them were counted.
Of Parquet only the footers are read.
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
"""Files whose begin is looked at together."""

VALUE_BYTES, TEXT_BYTES = 8, 24
"""That a value of a Parquet column has in memory, at least: dictionaries may make a column of a million rows tiny."""

SEPARATORS = (";", "\t", "|", ",")
"""Looked for in a header that seems to be one column."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ShardedDataset:
    """A dataset, ready to be run.

    Attributes:
        files: with their rows.
        shards: in the order of the files; files without rows have none.
        columns: of the dataset: the union over files, in the order in which they are met. Of JSON Lines those in the
            first lines, and those that are wanted.
        notes: what a person may want to know, and need not change.
    """

    files: tuple[File, ...]
    shards: tuple[Shard, ...]
    columns: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of a file: bytes or rows, and its rows' numbers."""

    start: int
    end: int
    first_row: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Head:
    """What is known of a file before it is read through: its columns, of Parquet with their types, and row groups."""

    columns: tuple[str, ...]
    types: Mapping[str, pl.DataType] = field(default_factory=dict)
    row_groups: tuple[RowGroup, ...] = ()


class FindRecords(Protocol):
    """Finds the records at the begin of a text."""

    def __call__(self, text: bytes, *, final: bool) -> Records:
        """As `find_records` and `find_lines` do."""


def shard_dataset(
    bucket: Bucket, files: Sequence[File], options: Options, features: Sequence[Feature]
) -> ShardedDataset:
    """Look at a dataset's files, and cut them into shards.

    Args:
        bucket: that the files lie in.
        files: as `find_files` returns them.
        options: of the run.
        features: of the release that answers.

    Raises:
        DatasetRefused: the options or the files have problems, or columns are missing; all of them are listed. It is
            found as early as it can be: what the begins of files tell, before any file is read through.
        DatasetChanged: a file is of another version by now.
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
    seen: set[str] = set()
    unseen = [name for name in wanted if name not in columns]
    head_of = dict(zip(files, heads, strict=True))
    slices = _for_each(files, lambda file: _slice_file(bucket, file, options, head_of[file], wanted, unseen, seen), 1)
    columns = (*columns, *(name for name in unseen if name in seen))
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
    """Cut a text into slices of whole records, of at most `size` bytes where the records are shorter.

    The slices depend on the text alone, not on the pieces that it comes in. There is none without a row. They are about
    equal, since a run is over when the longest of them is, where it is known where the text ends.

    Args:
        pieces: of the text.
        find: finds its records.
        start: where the first piece begins.
        size: bytes of a slice.
        end: of the text, if that is known.

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
    """Return the bytes of a slice where what is left of a text is cut into as few as can be, all alike."""
    if end is None or end <= begin:
        return size
    return -(-(end - begin) // -(-(end - begin) // size))


def slice_rows(row_groups: Sequence[RowGroup], widths: Mapping[str, int], size: int) -> Iterator[Slice]:
    """Cut row groups into slices of about `size` bytes; small ones go together, large ones are cut evenly.

    Args:
        row_groups: of a file.
        widths: bytes that a value has in memory, at least, by the columns that are read.
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
    """Return what finds the records of a file."""
    return find_lines if file.format == "jsonl" else partial(find_records, separator=options.separator)


def _check_options(options: Options) -> None:
    problems = []
    if not is_text_encoding(options.encoding):
        near = suggest(options.encoding, aliases)
        problems.append(
            Problem("encoding", f"{show(options.encoding)} is no encoding", f"name one that Python has, as utf-8{near}")
        )
    if not options.separator.isascii() or options.separator in '"\r\n\0':
        problems.append(
            Problem(
                "separator",
                f"{show(options.separator)} cannot separate fields",
                "use one ASCII character that is no quote and no line end",
            )
        )
    if problems:
        raise DatasetRefused(problems)


def _for_each(files: Sequence[File], act: Callable[[File], T], at_once: int) -> list[T]:
    """Do something with every file, and refuse all at once that cannot be read."""

    def attempt(file: File) -> T | Problem:
        try:
            return act(file)
        except TextRefused as refused:
            return Problem(file.name, refused.message, refused.remedy)
        except RecordTooLong:
            return Problem(file.name, f"has a line of more than {MAX_RECORD_BYTES:,} bytes", "write shorter ones")

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
    unseen: Collection[str],
    seen: set[str],
) -> list[Slice]:
    """Cut one file; put into `seen` what is found of `unseen` keys."""
    if file.format == "parquet":
        widths = {
            name: TEXT_BYTES if head.types[name] == pl.String else VALUE_BYTES for name in head.types if name in wanted
        }
        return list(slice_rows(head.row_groups, widths, options.shard_size))
    text = read_head(open_text(bucket, file, options), file, options).text
    pieces = _watch(text.pieces, unseen, seen) if file.format == "jsonl" and unseen else text.pieces
    find = choose_finder(options, file)
    if not text.whole:
        return list(slice_text(pieces, find, text.start, options.shard_size, file.size))
    return [Slice(0, file.size, 1, part.rows) for part in slice_text(pieces, find, 0, sys.maxsize)]


def _watch(pieces: Iterable[bytes], unseen: Collection[str], seen: set[str]) -> Iterator[bytes]:
    """Pass pieces of JSON on, and note which keys are in them. A text of the same word makes one seen too."""
    written = {name: {json.dumps(name).encode(), json.dumps(name, ensure_ascii=False).encode()} for name in unseen}
    longest = max(len(form) for forms in written.values() for form in forms)
    before = b""
    for piece in pieces:
        text = before + piece
        seen |= {name for name, forms in written.items() if name not in seen and any(form in text for form in forms)}
        before = text[-longest:]
        yield piece


def _name_problems(file: File, head: _Head, wanted: Sequence[str]) -> Iterator[Problem]:
    """Refuse a column that is nearly named as one that the file lacks: else a default would take its place unseen."""
    others = [column for column in head.columns if column not in wanted]
    for name in wanted:
        if name not in head.columns and (near := find_similar_name(name, others)) is not None:
            yield Problem(
                file.name,
                f"column {show(near)} is not called {show(name)}, but nearly",
                EXACTLY,
            )


def _refuse_images(features: Sequence[Feature]) -> None:
    pictures = [feature.name for feature in features if isinstance(feature, ImageFeature)]
    if pictures:
        raise DatasetRefused(
            [
                Problem(f"feature {name}", "is a picture, and a batch reads none", "send pictures in payloads")
                for name in pictures
            ]
        )


def _missing_problems(columns: Collection[str], options: Options, features: Sequence[Feature]) -> list[Problem]:
    """Refuse a dataset without a column that must be there; what `_name_problems` says of one is not said again."""
    asked = [("id", options.id), ("label", options.label), *(("keep", name) for name in options.keep)]
    wanted = required_columns(options, [feature.name for feature in features])
    others = [column for column in columns if column not in wanted]
    lacking = [name for name in wanted if name not in columns and find_similar_name(name, others) is None]
    defaults = [feature.name for feature in features if getattr(feature, "missing", None) is not None]
    if defaults and len(defaults) == len(features) and set(defaults) <= set(lacking):
        remedy = f"name the columns {enumerate_values(defaults)}"
        return [Problem("features", "none is a column of the dataset", remedy)]
    return [
        Problem(
            f"feature {feature.name}",
            "is no column of the dataset",
            f"{'add it' if isinstance(feature, TensorFeature) else ADD_OR_DEFAULT}{suggest(feature.name, columns)}",
        )
        for feature in features
        if feature.name in lacking and getattr(feature, "missing", None) is None
    ] + [
        Problem(
            role,
            f"{show(name)} is no column of the dataset",
            f"use one of {enumerate_values(columns)}{suggest(name, columns)}",
        )
        for role, name in asked
        if name in lacking
    ]


def _separator_problems(columns: Collection[str], options: Options) -> Iterator[Problem]:
    """Say that a header is one column, where what else separates columns stands in it."""
    header = next(iter(columns))
    other = next((one for one in SEPARATORS if one != options.separator and one in header), None)
    if len(columns) == 1 and other is not None:
        remedy = f"name the separator, which may be {show(other)}"
        yield Problem("separator", f"{show(options.separator)} is not in the header {show(header)}", remedy)


def _notes(
    files: Sequence[File], heads: Sequence[_Head], columns: Collection[str], wanted: Collection[str]
) -> Iterator[str]:
    if extra := [name for name in columns if name not in wanted]:
        yield f"not used: {enumerate_values(extra)}; --keep carries a column through to the results"
    for name in wanted:
        if name not in columns:
            yield f"{show(name)} is in no file: its default in the manifest is used"
        elif files[0].format != "jsonl":
            lacking = [
                file.name for file, head in zip(files, heads, strict=True) if head.columns and name not in head.columns
            ]
            if lacking:
                yield f"{show(name)} is missing in {enumerate_values(lacking, most=3)}"
