"""Reads a shard to columns of raw values, all text for CSV, typed for JSON and Parquet; and malformed records.

Values are not interpreted here: a number in quotes is text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from stepensemble.batch.documents import File, Options, RunPlan, Shard
from stepensemble.batch.input.csv_records import (
    BLANK,
    NEWLINE,
    RETURN,
    UNCLOSED,
    Records,
    RecordTooLong,
    has_bare_return,
    quote_fields,
)
from stepensemble.batch.input.datasets import DAMAGED, read_head
from stepensemble.batch.input.parquet_footer import fetch_chunks, read_footer
from stepensemble.batch.input.parquet_types import to_plain_type
from stepensemble.batch.input.repeated_keys import find_suspects
from stepensemble.batch.input.sharding import choose_finder
from stepensemble.batch.input.text_stream import TextRefused, open_text
from stepensemble.core.arrays import Flags, Integers
from stepensemble.core.errors import InvalidPayload, ShardUnreadable
from stepensemble.core.problems import Problem, list_problems
from stepensemble.core.strict_json import read_json
from stepensemble.storage.objects import Bucket

MAX_CHARACTERS = 200
"""Characters of a malformed record that are shown beside the reason."""

LINES_AT_ONCE = 1024
"""If a line of JSON Lines is malformed, so many lines are decoded together before each is decoded alone."""

WINDOW_BYTES = 64 * 1024
"""Bytes that are decoded at a time."""

OPEN, CLOSE = b"{}"

BARE_RETURN = (
    "has a carriage return (CR) in a field without quotes",
    "end lines with LF or CRLF, and quote fields that contain line ends",
)


@dataclass(frozen=True, slots=True)
class MalformedRecord:
    """A record that is no row.

    Attributes:
        row: its number in the file; malformed records are counted as rows.
        value: its text, cut.
        reason: the problem.
        remedy: how to fix it.
        kind: the reason without details of this record, by which reasons are counted.
    """

    row: int
    value: str
    reason: str
    remedy: str
    kind: str


@dataclass(frozen=True, slots=True)
class RawRows:
    """The raw values of a shard.

    Attributes:
        frame: the required columns, in order; null is a missing value, and a column that the file does not have is all
            null. CSV: all text. JSON Lines: the type of the column's values: text, booleans, integers, floats (for
            numbers with integers among them), or `Object` for lists, objects, large integers and mixed types. Parquet:
            categories are text.
        numbers: the frame's rows by their number in the file.
        malformed: the records that are no rows, in order.
        original: returns the exact values of a column, by positions in the frame; None if the frame has them.
    """

    frame: pl.DataFrame
    numbers: Integers
    malformed: tuple[MalformedRecord, ...] = ()
    original: Callable[[str, Sequence[int]], list[Any]] | None = None

    @property
    def rows(self) -> int:
        """The number of rows, including malformed records."""
        return len(self.numbers) + len(self.malformed)


def read_shard(bucket: Bucket, plan: RunPlan, shard: Shard, columns: Sequence[str]) -> RawRows:
    """Read a shard.

    Args:
        bucket: that the dataset is stored in.
        plan: of the run.
        shard: one of its shards.
        columns: the required ones (`datasets.required_columns`).

    Raises:
        ShardUnreadable: the shard is damaged, or its number of rows is not the one that was counted.
        DatasetChanged: the file has another version now.
    """
    file = plan.files[shard.file]
    try:
        raw = (
            _read_parquet(bucket, file, shard, columns)
            if file.format == "parquet"
            else _read_text(bucket, file, shard, plan.options, columns)
        )
    except TextRefused as refused:
        raise _unreadable(file, refused.message, refused.remedy) from None
    except RecordTooLong:
        raise _unreadable(file, "has a line that is too long", "write shorter lines") from None
    if shard.rows is not None and raw.rows != shard.rows:
        raise _unreadable(file, f"has {raw.rows} rows, but {shard.rows} were counted", "start the run again")
    return raw


def _unreadable(file: File, message: str, remedy: str) -> ShardUnreadable:
    return ShardUnreadable(list_problems([Problem(file.name, message, remedy)]))


def _read_text(bucket: Bucket, file: File, shard: Shard, options: Options, columns: Sequence[str]) -> RawRows:
    opened = open_text(bucket, file, options)
    head = read_head(opened, file, options)
    if opened.whole:
        body = b"".join(head.text.pieces)
    else:
        body = bucket.read_range(file.key, shard.start, shard.end, file.version, file.version_id)
    records = choose_finder(options, file)(body, final=True)
    found = records.fields != BLANK
    numbers = np.cumsum(found) + (shard.first_row - 1)
    lines = _Lines(body, opened.encoding, records, numbers)
    if file.format == "jsonl":
        return _read_jsonl(lines, found, columns)
    return _read_csv(lines, found, head.columns, options.separator, columns)


@dataclass(frozen=True, slots=True)
class _Lines:
    """A shard's text and its records."""

    body: bytes
    encoding: str
    records: Records
    numbers: Integers

    def span(self, record: int) -> tuple[int, int]:
        ends = self.records.ends
        return (int(ends[record - 1]) if record else 0), int(ends[record])

    def read(self, record: int) -> bytes:
        start, end = self.span(record)
        return self.body[start:end]

    def reject(self, record: int, reason: str, remedy: str, kind: str = "") -> MalformedRecord:
        shown = self.read(record)[: 4 * MAX_CHARACTERS].decode(self.encoding, "replace").rstrip("\r\n")
        value = shown if len(shown) <= MAX_CHARACTERS else shown[: MAX_CHARACTERS - 1] + "…"
        return MalformedRecord(int(self.numbers[record]), value, reason, remedy, kind or reason)

    def find_undecodable(self) -> Flags:
        """Return for each record whether it is not valid in the encoding."""
        ends = self.records.ends
        bad = np.zeros(len(ends), np.bool_)
        if self.body.isascii():
            return bad
        view, place = memoryview(self.body), 0
        while place < self.records.length:
            # In windows, because every error holds a copy of the decoded bytes.
            stop = int(ends[min(int(np.searchsorted(ends, place + WINDOW_BYTES)), len(ends) - 1)])
            try:
                str(view[place:stop], self.encoding)
            except UnicodeDecodeError as error:
                record = int(np.searchsorted(ends, place + error.start, "right"))
                bad[record] = True
                stop = int(ends[record])
            place = stop
        return bad

    def find_torn(self, separator: str) -> Flags:
        """Return for each record of a CSV whether it has a carriage return in a field that is not quoted."""
        ends, fields = self.records.ends, self.records.fields
        torn = np.zeros(len(ends), np.bool_)
        if self.body.count(b"\r") == self.body.count(b"\r\n"):
            return torn
        data = np.frombuffer(self.body, np.uint8)[: self.records.length]
        places = np.flatnonzero(data == RETURN)
        places = places[data[np.minimum(places + 1, len(data) - 1)] != NEWLINE]
        for record in np.unique(np.searchsorted(ends, places, "right")).tolist():
            torn[record] = fields[record] > BLANK and has_bare_return(self.read(record), separator)
        return torn

    def select(self, kept: Flags) -> bytes:
        """Return the text of the records that are kept."""
        if kept.all():
            return self.body[: self.records.length]
        sizes = np.diff(self.records.ends, prepend=0)
        return np.frombuffer(self.body, np.uint8)[: self.records.length][np.repeat(kept, sizes)].tobytes()

    def are_objects(self) -> Flags:
        """Return for each line whether it begins and ends with a brace, so that no object spans two lines."""
        data, ends = np.frombuffer(self.body, np.uint8), self.records.ends
        starts = np.append(0, ends)[:-1]
        last = ends - 1 - (data[ends - 1] == NEWLINE)
        last -= data[last] == RETURN
        closed: Flags = (data[starts] == OPEN) & (data[last] == CLOSE)
        return closed

    def to_utf8(self, text: bytes) -> bytes:
        """Return text in the encoding as UTF-8."""
        return text if self.encoding == "utf-8" else text.decode(self.encoding).encode()


def _read_csv(lines: _Lines, found: Flags, header: Sequence[str], separator: str, columns: Sequence[str]) -> RawRows:
    fields = lines.records.fields
    bad = lines.find_undecodable() & found
    torn = lines.find_torn(separator)
    kept = found & ~bad & ~torn & (fields == len(header))

    def explain(record: int) -> tuple[str, ...]:
        if bad[record]:
            return _encoding_reason(lines.encoding)
        return BARE_RETURN if torn[record] else _csv_reason(int(fields[record]), len(header))

    malformed = tuple(lines.reject(record, *explain(record)) for record in np.flatnonzero(found & ~kept).tolist())
    text = lines.select(kept)
    quoted = b'"' in text
    if lines.records.loose:
        quoted = text.startswith(b'"') or b'\n"' in text or separator.encode() + b'"' in text
        text = _requote(lines, kept, separator) if quoted else text
    frame = _parse_csv(lines.to_utf8(text), header, separator, columns, quoted=quoted)
    numbers = lines.numbers[kept]
    if frame.height != len(numbers):
        raise TextRefused(f"was read as {frame.height} rows, but has {len(numbers)}", "report this as a bug")
    return RawRows(frame, numbers, malformed)


class _Reason(NamedTuple):
    """Why a record is malformed: as in `MalformedRecord`."""

    reason: str
    remedy: str
    kind: str


def _csv_reason(fields: int, width: int) -> _Reason:
    if fields == UNCLOSED:
        reason = "has a quoted field that is not closed"
        return _Reason(reason, "close the field, or double the quotes in it", reason)
    reason = f"has {fields} field{'' if fields == 1 else 's'}, but the header has {width}"
    return _Reason(reason, "quote fields that contain separators", "has another number of fields than the header")


def _encoding_reason(encoding: str) -> tuple[str, str]:
    return f"is not {encoding}", f"write it in {encoding}, or set the encoding of the dataset"


def _requote(lines: _Lines, kept: Flags, separator: str) -> bytes:
    """Return the text of the records that are kept, with quotes according to RFC 4180."""
    loose = [record for record in lines.records.loose if kept[record]]
    if not loose:
        return lines.select(kept)
    strict = kept.copy()
    strict[loose] = False
    text = lines.select(strict)
    places = np.cumsum(np.diff(lines.records.ends, prepend=0) * strict)[loose]
    parts: list[bytes] = []
    done = 0
    for record, place in zip(loose, places.tolist(), strict=True):
        parts += text[done:place], quote_fields(lines.read(record), separator)
        done = place
    return b"".join([*parts, text[done:]])


def _parse_csv(
    text: bytes, header: Sequence[str], separator: str, columns: Sequence[str], *, quoted: bool
) -> pl.DataFrame:
    """Parse text without blank lines, in which each record has as many fields as the header.

    `quoted`: whether quotes follow RFC 4180; otherwise they are ordinary characters.
    """
    if not text:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    written = [f'"{index}"' for index in range(len(header))]  # in quotes, since the separator may be a digit
    places = {name: label.strip('"') if quoted else label for name, label in zip(header, written, strict=True)}
    taken = [places[name] for name in columns if name in places]
    parsed = pl.read_csv(
        separator.join(written).encode() + b"\n" + text,
        columns=taken or [places[header[0]]],
        separator=separator,
        quote_char='"' if quoted else None,
        infer_schema=False,
    )
    missing = pl.repeat(None, parsed.height, dtype=pl.String)
    return parsed.select(
        (pl.when(pl.col(places[name]) != "").then(pl.col(places[name])) if name in places else missing).alias(name)
        for name in columns
    )


def _read_jsonl(lines: _Lines, found: Flags, columns: Sequence[str]) -> RawRows:
    bad = lines.find_undecodable() & found
    rows, malformed = _decode(lines, found & ~bad, _make_decoder(columns))
    malformed |= {
        record: lines.reject(record, *_encoding_reason(lines.encoding)) for record in np.flatnonzero(bad).tolist()
    }
    found = found.copy()
    found[list(malformed)] = False
    if repeated := _find_repeated(lines, found):
        rows = [row for record, row in zip(np.flatnonzero(found).tolist(), rows, strict=True) if record not in repeated]
        malformed |= repeated
        found[list(repeated)] = False
    kept = np.flatnonzero(found)
    frame = pl.DataFrame(
        [_to_series(name, list(map(attrgetter(f"c{index}"), rows))) for index, name in enumerate(columns)]
    )

    def original(column: str, positions: Sequence[int]) -> list[Any]:
        texts = [lines.to_utf8(lines.read(record)) for record in kept[list(positions)].tolist()]
        return [msgspec.json.decode(text).get(column) for text in texts]

    return RawRows(frame, lines.numbers[kept], tuple(malformed[record] for record in sorted(malformed)), original)


def _find_repeated(lines: _Lines, kept: Flags) -> dict[int, MalformedRecord]:
    """Reject lines with a key twice in one object, as `core.strict_json` does; all of these lines are valid JSON."""
    records = np.flatnonzero(kept)
    sizes = np.diff(lines.records.ends, prepend=0)[records]
    repeated = {}
    for record in records[find_suspects(lines.select(kept), np.cumsum(sizes))].tolist():
        try:
            read_json(lines.to_utf8(lines.read(record)))
        except InvalidPayload as refused:
            (problem,) = refused.problems
            repeated[record] = lines.reject(record, problem.message, problem.remedy, "has a key twice")
        except ValueError as error:
            repeated[record] = lines.reject(record, *_json_reason(error))
    return repeated


def _make_decoder(columns: Sequence[str]) -> msgspec.json.Decoder[Any]:
    fields = {f"c{index}": name for index, name in enumerate(columns)}
    row = msgspec.defstruct("Row", [(field, Any, None) for field in fields], rename=fields, gc=False)
    return msgspec.json.Decoder(row)


def _decode(
    lines: _Lines, kept: Flags, decoder: msgspec.json.Decoder[Any]
) -> tuple[list[Any], dict[int, MalformedRecord]]:
    """Decode all lines together; if that fails, some lines together; and if that fails, each line alone."""
    simple = lines.are_objects()
    records = np.flatnonzero(kept)
    if simple[records].all():
        rows = _decode_objects(lines.to_utf8(lines.select(kept)), len(records), decoder)
        if rows is not None:
            return rows, {}
    rows, malformed = [], {}
    for some in np.split(records, range(LINES_AT_ONCE, len(records), LINES_AT_ONCE)):
        texts = [lines.to_utf8(lines.read(record)) for record in some.tolist()]
        together = _decode_objects(b"".join(texts), len(texts), decoder) if simple[some].all() else None
        if together is not None:
            rows += together
            continue
        for record, text in zip(some.tolist(), texts, strict=True):
            try:
                rows.append(decoder.decode(text))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                malformed[record] = lines.reject(record, *_json_reason(error))
    return rows, malformed


def _decode_objects(text: bytes, count: int, decoder: msgspec.json.Decoder[Any]) -> list[Any] | None:
    """Decode lines that begin and end with a brace; None if not every line is exactly one object."""
    try:
        rows: list[Any] = decoder.decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return rows if len(rows) == count else None


def _json_reason(error: Exception) -> _Reason:
    if "`object`" in str(error):
        return _Reason("is not a JSON object", "write one object per line", "is not a JSON object")
    if isinstance(error, RecursionError):
        return _Reason("is malformed JSON: it is nested too deeply", "nest it less deeply", "is malformed JSON")
    detail = str(error).removeprefix("JSON is malformed: ")
    return _Reason(f"is malformed JSON: {detail}", "write one object per line", "is malformed JSON")


def _to_series(name: str, values: list[Any]) -> pl.Series:
    """Make a column with the type of its values."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pl.Series(name, values, pl.Null)
    if kinds == {str}:
        return pl.Series(name, values, pl.String)
    if kinds == {bool}:
        return pl.Series(name, values, pl.Boolean)
    try:
        if kinds == {int}:
            return pl.Series(name, values, pl.Int64)
        if kinds <= {int, float}:  # JSON has no NaN, so NaN can represent missing values here
            return pl.Series(name, np.array(values, np.float64), nan_to_null=True)
    except (OverflowError, TypeError):  # an integer is too large: a column of Python objects holds it
        pass
    return pl.Series(name, values, pl.Object)


def _read_parquet(bucket: Bucket, file: File, shard: Shard, columns: Sequence[str]) -> RawRows:
    footer = read_footer(bucket, file)
    count = shard.end - shard.start
    wanted = set(columns)
    chunks = []
    first = 0
    for group in footer.row_groups:
        if first < shard.end and first + group.rows > shard.start:
            chunks += [chunk for chunk in group.chunks if chunk.column in wanted]
        first += group.rows
    numbers = np.arange(shard.start + 1, shard.end + 1, dtype=np.int64)
    with fetch_chunks(bucket, file, footer, chunks) as path:
        try:
            lazy = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            types = lazy.collect_schema()
            present = [name for name in columns if name in types]
            read = lazy.select(present).slice(shard.start, count).collect() if present else pl.DataFrame()
        except DAMAGED as error:
            # The message of a panic is about polars' code only.
            detail = "" if isinstance(error, pl.exceptions.PanicException) else f" ({str(error).splitlines()[0]})"
            raise TextRefused(f"is damaged{detail}", "write it again") from None
    frame = pl.select(numbers=numbers).select(
        (to_plain_type(read[name]) if name in types else pl.lit(None)).alias(name) for name in columns
    )
    return RawRows(frame, numbers)
