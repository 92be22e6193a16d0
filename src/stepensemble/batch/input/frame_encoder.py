"""Validates and encodes a frame of raw columns for the members, and rejects invalid rows with reasons.

The rules and the messages are those of a single execution (`core.preprocessing.encoding`). Polars and NumPy find and
encode the values that are certainly valid. The others, which are nearly always invalid, are passed to
`core.preprocessing.encoding.encode`.

A text file has no types. In it, a number is written like a number in a payload's text, and in addition:

- a category is a text of the vocabulary; if the vocabulary has integers, a number's text is that integer (`3`, ` 3 `
  and `3.0` are all 3),
- a boolean is `true` or `false`, in any case,
- a tensor is written as JSON, `[[1, 2], [3, 4]]`.

Parquet has types that JSON does not have: a decimal is read as a number; a date, a time or a duration as its ISO 8601
text; a categorical as its text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
import polars as pl

from stepensemble.batch.input.parquet_types import to_plain_type
from stepensemble.core.arrays import Array, Flags, Floats, Integers
from stepensemble.core.preprocessing.columns import Columns, select_rows
from stepensemble.core.preprocessing.encoding import BLANKS, Reasons, encode, read_numeral, scale_numbers
from stepensemble.core.problems import show
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    Feature,
    ImageFeature,
    NumberFeature,
    TensorFeature,
)

VALUE_LENGTH = 200
"""Characters of a rejected text at most."""

MAX_COMPARED_VALUES = 16
"""Up to so many distinct values, a column is compared with each of them."""

EXACT = 2.0**53 - 1
"""Up to this number, a float represents exactly one integer."""

WRONG = pl.Schema(
    {
        "index": pl.Int64,
        "column": pl.String,
        "value": pl.String,
        "reason": pl.String,
        "remedy": pl.String,
        "kind": pl.String,
    }
)
"""Schema of wrong values: `index` is the row in the frame; `value` is a text cut to `VALUE_LENGTH`, or another value as
messages quote it; `kind` is the reason without the value."""

Original = Callable[[str, Sequence[int]], list[Any]]
"""Returns a column's values at some rows, as Python objects."""

_ReadValues = Callable[[Sequence[int]], list[Any]]
"""The same for one column."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Encoded rows.

    Attributes:
        columns: of the accepted rows, as `core.preprocessing.encoding.normalize` returns them.
        accepted: for each row of the frame, whether it is accepted.
        values: the accepted rows' values by feature, as numbers: a number before scaling, a category's index in the
            vocabulary, 1 and 0 for a boolean; NaN for a missing value. Tensors have none.
        wrong: one line for each wrong value, by row and then by feature; see `WRONG`.
    """

    columns: Columns
    accepted: Flags
    values: Mapping[str, Floats]
    wrong: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Part:
    """One feature's columns, reasons and values (see `EncodedRows.values`); entries of rejected rows are undefined."""

    columns: Columns
    reasons: Reasons
    values: Floats | None


def encode_frame(
    features: Sequence[Feature], frame: pl.DataFrame, *, typed: bool, original: Original | None = None
) -> EncodedRows:
    """Validate, encode and scale rows as `core.preprocessing.encoding.normalize` does.

    Args:
        features: of the release.
        frame: has a column with each feature's name; if there is none, or the value is null, the value is missing.
            Other columns are ignored.
        typed: whether values have the types of JSON or Parquet; otherwise all are text, from a file without types.
        original: the values as they are in the file, if the frame's type is wider, as for integers among floats.
    """
    columns: Columns = {}
    values: dict[str, Floats] = {}
    accepted = np.ones(frame.height, dtype=np.bool_)
    wrong: list[tuple[int, int, tuple[Any, ...]]] = []
    for position, feature in enumerate(features):
        present = feature.name in frame.columns
        series = to_json_type(frame[feature.name]) if present else pl.Series([None] * frame.height)
        read_values = partial(original, feature.name) if present and original is not None else partial(_list, series)
        part = _encode(feature, series, read_values, typed=typed)
        columns |= part.columns
        if part.values is not None:
            values[feature.name] = part.values
        rows = list(part.reasons)
        accepted[rows] = False
        raw = read_values(rows)
        read = raw if typed else read_texts(feature, raw)
        for row, value, meant in zip(rows, raw, read, strict=True):
            reason, remedy = part.reasons[row]
            line = (row, feature.name, _write(value), reason, remedy, _name_kind(reason, meant))
            wrong.append((row, position, line))
    lines = [line for _, _, line in sorted(wrong, key=lambda entry: entry[:2])]
    if not accepted.all():
        columns = select_rows(columns, np.flatnonzero(accepted))
        values = select_rows(values, np.flatnonzero(accepted))
    return EncodedRows(columns, accepted, values, pl.DataFrame(lines, WRONG, orient="row"))


def to_json_type(series: pl.Series) -> pl.Series:
    """Convert a column to a type that JSON has; see the module."""
    series = to_plain_type(series)
    dtype = series.dtype
    if dtype.is_decimal():  # through its text, since a division of integers would round twice
        return series.cast(pl.String).cast(pl.Float64)
    return series.cast(pl.String) if dtype.is_temporal() else series


def _list(series: pl.Series, rows: Sequence[int]) -> list[Any]:
    """Return some of the values; polars can gather all types except Python objects."""
    if not len(rows):
        return []
    return [series[row] for row in rows] if series.dtype == pl.Object else series[list(rows)].to_list()


def _encode(feature: Feature, series: pl.Series, read_values: _ReadValues, *, typed: bool) -> _Part:
    single = series.dtype in (pl.String, pl.Boolean, pl.Null) or series.dtype.is_numeric()
    if isinstance(feature, NumberFeature) and single and series.dtype != pl.Boolean:
        return _encode_numbers(feature, series, read_values)
    if isinstance(feature, CategoryFeature | BooleanFeature) and single:
        return _encode_distinct(feature, series, read_values, typed=typed)
    if isinstance(feature, TensorFeature) and isinstance(series.dtype, pl.List | pl.Array):
        return _encode_tensors(feature, series, read_values)
    values = read_values(range(len(series)))
    return _encode_singly(feature, values if typed else read_texts(feature, values))


def _encode_singly(feature: Feature, values: Sequence[Any]) -> _Part:
    columns, reasons = encode(feature, values)
    if isinstance(feature, TensorFeature | ImageFeature):
        return _Part(columns, reasons, None)
    if isinstance(feature, NumberFeature):
        absent = [value is None or row in reasons for row, value in enumerate(values)]
        numbers = [
            np.nan if none else read_numeral(value) if isinstance(value, str) else float(value)
            for none, value in zip(absent, values, strict=True)
        ]
        return _Part(columns, reasons, np.array(numbers, dtype=np.float64))
    # One column holds the index itself; of several columns, the one that is 1 has the index.
    only = next(iter(columns.values()))
    indexes = np.stack([*columns.values()], axis=1).argmax(axis=1) if len(columns) > 1 else only
    return _Part(columns, reasons, np.where([value is None for value in values], np.nan, indexes))


def _encode_numbers(feature: NumberFeature, series: pl.Series, read_values: _ReadValues) -> _Part:
    """Encode finite numbers; polars parses the same texts as `core.preprocessing.encoding.read_numeral`."""
    cast = series.cast(pl.Float64, strict=False)
    if series.dtype == pl.String and cast.null_count() > series.null_count():
        cast = series.str.strip_chars().cast(pl.Float64, strict=False)
    numbers = cast.to_numpy(writable=True)  # null is NaN there
    numbers[np.isinf(numbers)] = np.nan
    filled = numbers
    if feature.missing is not None and series.null_count():
        filled = np.where(series.is_null().to_numpy(), feature.missing, numbers)
    column, within = scale_numbers(feature, filled)
    rest = np.flatnonzero(~(within & np.isfinite(column)))
    part = _encode_singly(feature, read_values(rest.tolist()))
    column[rest], numbers[rest] = part.columns[feature.name], part.values
    return _Part({feature.name: column}, _renumber(part.reasons, rest), numbers)


def _encode_distinct(
    feature: CategoryFeature | BooleanFeature, series: pl.Series, read_values: _ReadValues, *, typed: bool
) -> _Part:
    """Encode each distinct value once, and assign the result to its rows."""
    first, codes = find_distinct(series)
    values = _list(series, first.tolist())
    part = _encode_singly(feature, values if typed else read_texts(feature, values))
    wrong = np.zeros(len(first), dtype=np.bool_)
    wrong[list(part.reasons)] = True
    rest = np.flatnonzero(wrong[codes])
    columns = select_rows(part.columns, codes)
    indexes = np.empty(0) if part.values is None else part.values[codes]
    if not series.dtype.is_float():
        reasons = {row: part.reasons[code] for row, code in zip(rest.tolist(), codes[rest].tolist(), strict=True)}
        return _Part(columns, reasons, indexes)
    # A float may be an integer in the file, which can be valid, or which the float does not represent exactly. And 0
    # and -0 are one value here, but differ in messages.
    rest = np.flatnonzero(wrong[codes] | (series.abs() > EXACT).fill_null(value=False).to_numpy())
    again = _encode_singly(feature, read_values(rest.tolist()))
    for name, column in again.columns.items():
        columns[name][rest] = column
    indexes[rest] = again.values
    return _Part(columns, _renumber(again.reasons, rest), indexes)


def find_distinct(series: pl.Series) -> tuple[Integers, Integers]:
    """Return the first row of each distinct value, and for each row the index of its value among these."""
    if not series.dtype.is_float():
        values = series.unique(maintain_order=True)
        if 0 < len(values) <= MAX_COMPARED_VALUES:
            return _find_few(series, values.to_list())
    rows = pl.DataFrame({"value": series, "first": np.arange(len(series))})
    distinct = rows.unique("value", keep="first", maintain_order=True)
    codes = rows.select("value").join(
        distinct.with_row_index("code"), on="value", how="left", nulls_equal=True, maintain_order="left"
    )
    return distinct["first"].to_numpy(), codes["code"].cast(pl.Int64).to_numpy()


def _find_few(series: pl.Series, values: Sequence[Any]) -> tuple[Integers, Integers]:
    """Do so for a few known values: comparing with each of them is faster than looking up each row."""
    first, codes = np.zeros(len(values), np.int64), np.zeros(len(series), np.int64)
    for code, value in enumerate(values[1:], 1):
        same = series.is_null() if value is None else (series == value)
        rows = (same.fill_null(value=False) if same.null_count() else same).to_numpy()
        first[code] = rows.argmax()
        np.add(codes, code, out=codes, where=rows)
    return first, codes


def _encode_tensors(feature: TensorFeature, series: pl.Series, read_values: _ReadValues) -> _Part:
    column = np.zeros((len(series), *feature.shape), dtype=feature.dtype)
    rows, numbers = _find_regular(series, feature.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = numbers.astype(column.dtype)
    fits = np.isfinite(numbers) & (np.isfinite(cast) if column.dtype.kind == "f" else cast == numbers)
    right = fits.all(axis=tuple(range(1, column.ndim)))
    column[rows[right]] = cast[right]
    rest = np.setdiff1d(np.arange(len(series)), rows[right])
    part = _encode_singly(feature, read_values(rest.tolist()))
    column[rest] = part.columns[feature.name]
    return _Part({feature.name: column}, _renumber(part.reasons, rest), None)


def _find_regular(series: pl.Series, shape: Sequence[int]) -> tuple[Integers, Array]:
    """Find the rows whose lists have a shape and contain numbers; return rows and numbers, as `(rows, *shape)`."""
    nothing = np.arange(0), np.zeros((0, *shape))
    rows, entries, flat = np.arange(len(series)), 1, series  # each remaining row has so many entries in `flat`
    for size in shape:
        if isinstance(flat.dtype, pl.Array):
            flat = flat.arr.to_list()
        if not isinstance(flat.dtype, pl.List):
            return nothing
        right = (flat.list.len() == size).fill_null(value=False).to_numpy()
        regular = right.reshape(len(rows), entries).all(axis=1)
        rows, flat = rows[regular], flat.filter(np.repeat(regular, entries)).list.explode()
        entries *= size
    if not flat.dtype.is_numeric() or flat.dtype.is_decimal() or flat.dtype in (pl.UInt64, pl.Int128, pl.UInt128):
        return nothing  # the type that NumPy chooses for large integers depends on the other values
    complete = flat.is_not_null().to_numpy().reshape(len(rows), entries).all(axis=1)
    return rows[complete], flat.filter(np.repeat(complete, entries)).to_numpy().reshape(-1, *shape)


def _renumber(reasons: Reasons, rows: Integers) -> Reasons:
    return {int(rows[row]): reason for row, reason in reasons.items()}


def read_texts(feature: Feature, texts: Sequence[str | None]) -> list[Any]:
    """Return the values of texts from a file without types; a text without another value stays a text."""
    match feature:
        case CategoryFeature():
            words = {value for value in feature.vocabulary if isinstance(value, str)}
            if len(words) == len(feature.vocabulary):
                return list(texts)
            return [text if text is None or text in words else _read_numeral(text) for text in texts]
        case BooleanFeature():
            return [text if text is None else BOOLEANS.get(text.strip(BLANKS).lower(), text) for text in texts]
        case TensorFeature():
            return [text if text is None else _read_json(text) for text in texts]
        case NumberFeature() | ImageFeature():
            return list(texts)


BOOLEANS = {"true": True, "false": False}


def _read_numeral(text: str) -> str | int | float:
    number = read_numeral(text)
    if number is None or not math.isfinite(number):
        return text
    try:
        return int(text.strip(BLANKS))
    except ValueError:  # has a point or an exponent
        return int(number) if number.is_integer() else number


def _read_json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _write(value: object) -> str | None:
    if not isinstance(value, str):
        return None if value is None else show(value)
    return value if len(value) <= VALUE_LENGTH else value[: VALUE_LENGTH - 1] + "…"


def _name_kind(reason: str, value: object) -> str:
    """Return the reason without its value, so that reasons can be counted and do not contain data."""
    return reason.removeprefix(show(value)).partition(" [")[0].strip()
