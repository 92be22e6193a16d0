"""From a frame of raw columns to the columns that members take, and what is wrong with the other rows.

The rules are those of a single execution, `core.preprocessing.encoding`, and so are the words. What is surely right is
found and encoded by polars and NumPy; what is left, which is nearly always wrong, is given to
`core.preprocessing.encoding.encode` itself.

A text file has no types. There a number is written as in a payload's text, and besides:

- a category is what it is called in the vocabulary; where the vocabulary has integers, a numeral is the number it
  writes (`3`, ` 3 `, `3.0`: all are 3),
- a boolean is `true` or `false`, in capitals or not,
- a tensor is written as JSON, `[[1, 2], [3, 4]]`.

Parquet has types that JSON has not: a decimal is the number it writes, a date, a time or a duration the text that ISO
8601 has for it, a categorical the text it stands for.
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
"""Characters of a rejected text that are kept."""

FEW = 16
"""Distinct values up to which a column is compared with each of them."""

EXACT = 2.0**53 - 1
"""Up to here a float is one integer."""

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
"""Of what is wrong: `index` is the row in the frame; `value` is text as it stands, cut to `VALUE_LENGTH`, anything
else as messages quote it; `kind` is the reason without the value."""

Original = Callable[[str, Sequence[int]], list[Any]]
"""Returns a column's values at some rows, in Python's types."""

_Written = Callable[[Sequence[int]], list[Any]]
"""The same of one column."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Encoded rows.

    Attributes:
        columns: of the accepted rows, as `core.preprocessing.encoding.normalize` returns them.
        accepted: whether a row of the frame is.
        values: what the accepted rows had, by feature, as numbers: a number as it was before scaling, a category's
            place in the vocabulary, 1 and 0 of a boolean; NaN where it was missing. Tensors have none.
        wrong: a line a wrong value, by row and then by feature; see `WRONG`.
    """

    columns: Columns
    accepted: Flags
    values: Mapping[str, Floats]
    wrong: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Part:
    """One feature's share: see `Encoded.values`; entries of wrong rows are meaningless."""

    columns: Columns
    reasons: Reasons
    values: Floats | None


def encode_frame(
    features: Sequence[Feature], frame: pl.DataFrame, *, typed: bool, original: Original | None = None
) -> EncodedRows:
    """Validate, encode and scale rows as `core.preprocessing.encoding.normalize` does.

    Args:
        features: as the release has them.
        frame: has a column of each feature's name; without it, or where it is null, the value is missing. Other
            columns are not looked at.
        typed: values are as JSON or Parquet have them; else all are text of a file that has no types.
        original: the values as they are written, where the frame's type is wider, as of integers among floats.
    """
    columns: Columns = {}
    values: dict[str, Floats] = {}
    accepted = np.ones(frame.height, dtype=np.bool_)
    wrong: list[tuple[int, int, tuple[Any, ...]]] = []
    for position, feature in enumerate(features):
        there = feature.name in frame.columns
        given = to_json_type(frame[feature.name]) if there else pl.Series([None] * frame.height)
        written = partial(original, feature.name) if there and original is not None else partial(_list, given)
        part = _encode(feature, given, written, typed=typed)
        columns |= part.columns
        if part.values is not None:
            values[feature.name] = part.values
        rows = list(part.reasons)
        accepted[rows] = False
        raw = written(rows)
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


def to_json_type(given: pl.Series) -> pl.Series:
    """Give values of a type that JSON has not one that it has; see the module."""
    given = to_plain_type(given)
    dtype = given.dtype
    if dtype.is_decimal():  # by its text, since one division of integers would round twice
        return given.cast(pl.String).cast(pl.Float64)
    return given.cast(pl.String) if dtype.is_temporal() else given


def _list(given: pl.Series, rows: Sequence[int]) -> list[Any]:
    """Return some of the values; polars gathers everything but Python's objects."""
    if not len(rows):
        return []
    return [given[row] for row in rows] if given.dtype == pl.Object else given[list(rows)].to_list()


def _encode(feature: Feature, given: pl.Series, written: _Written, *, typed: bool) -> _Part:
    single = given.dtype in (pl.String, pl.Boolean, pl.Null) or given.dtype.is_numeric()
    if isinstance(feature, NumberFeature) and single and given.dtype != pl.Boolean:
        return _encode_numbers(feature, given, written)
    if isinstance(feature, CategoryFeature | BooleanFeature) and single:
        return _encode_distinct(feature, given, written, typed=typed)
    if isinstance(feature, TensorFeature) and isinstance(given.dtype, pl.List | pl.Array):
        return _encode_tensors(feature, given, written)
    values = written(range(len(given)))
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
    # Of one column the place is its content, of several it is that of the one that is 1.
    only = next(iter(columns.values()))
    places = np.stack([*columns.values()], axis=1).argmax(axis=1) if len(columns) > 1 else only
    return _Part(columns, reasons, np.where([value is None for value in values], np.nan, places))


def _encode_numbers(feature: NumberFeature, given: pl.Series, written: _Written) -> _Part:
    """Cast to finite numbers; polars reads the same numerals as `core.preprocessing.encoding.read_numeral`."""
    cast = given.cast(pl.Float64, strict=False)
    if given.dtype == pl.String and cast.null_count() > given.null_count():
        cast = given.str.strip_chars().cast(pl.Float64, strict=False)
    numbers = cast.to_numpy(writable=True)  # null is NaN there
    numbers[np.isinf(numbers)] = np.nan
    filled = numbers
    if feature.missing is not None and given.null_count():
        filled = np.where(given.is_null().to_numpy(), feature.missing, numbers)
    column, within = scale_numbers(feature, filled)
    rest = np.flatnonzero(~(within & np.isfinite(column)))
    part = _encode_singly(feature, written(rest.tolist()))
    column[rest], numbers[rest] = part.columns[feature.name], part.values
    return _Part({feature.name: column}, _renumber(part.reasons, rest), numbers)


def _encode_distinct(
    feature: CategoryFeature | BooleanFeature, given: pl.Series, written: _Written, *, typed: bool
) -> _Part:
    """Encode what occurs once, and give every row what its value has become."""
    first, codes = find_distinct(given)
    values = _list(given, first.tolist())
    part = _encode_singly(feature, values if typed else read_texts(feature, values))
    wrong = np.zeros(len(first), dtype=np.bool_)
    wrong[list(part.reasons)] = True
    rest = np.flatnonzero(wrong[codes])
    columns = select_rows(part.columns, codes)
    places = np.empty(0) if part.values is None else part.values[codes]
    if not given.dtype.is_float():
        reasons = {row: part.reasons[code] for row, code in zip(rest.tolist(), codes[rest].tolist(), strict=True)}
        return _Part(columns, reasons, places)
    # A float may have been written as an integer, which can be right, or of which it is not all; and 0 and -0 are one
    # value here, but not in words.
    rest = np.flatnonzero(wrong[codes] | (given.abs() > EXACT).fill_null(value=False).to_numpy())
    again = _encode_singly(feature, written(rest.tolist()))
    for name, column in again.columns.items():
        columns[name][rest] = column
    places[rest] = again.values
    return _Part(columns, _renumber(again.reasons, rest), places)


def find_distinct(given: pl.Series) -> tuple[Integers, Integers]:
    """Return where each distinct value occurs first, and of each row the place of its value among these."""
    if not given.dtype.is_float():
        values = given.unique(maintain_order=True)
        if 0 < len(values) <= FEW:
            return _find_few(given, values.to_list())
    rows = pl.DataFrame({"value": given, "first": np.arange(len(given))})
    distinct = rows.unique("value", keep="first", maintain_order=True)
    codes = rows.select("value").join(
        distinct.with_row_index("code"), on="value", how="left", nulls_equal=True, maintain_order="left"
    )
    return distinct["first"].to_numpy(), codes["code"].cast(pl.Int64).to_numpy()


def _find_few(given: pl.Series, values: Sequence[Any]) -> tuple[Integers, Integers]:
    """Do so for a few values that are known: to compare with each of them takes less time than to look each row up."""
    first, codes = np.zeros(len(values), np.int64), np.zeros(len(given), np.int64)
    for code, value in enumerate(values[1:], 1):
        same = given.is_null() if value is None else (given == value)
        rows = (same.fill_null(value=False) if same.null_count() else same).to_numpy()
        first[code] = rows.argmax()
        np.add(codes, code, out=codes, where=rows)
    return first, codes


def _encode_tensors(feature: TensorFeature, given: pl.Series, written: _Written) -> _Part:
    column = np.zeros((len(given), *feature.shape), dtype=feature.dtype)
    rows, numbers = _find_regular(given, feature.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = numbers.astype(column.dtype)
    fits = np.isfinite(numbers) & (np.isfinite(cast) if column.dtype.kind == "f" else cast == numbers)
    right = fits.all(axis=tuple(range(1, column.ndim)))
    column[rows[right]] = cast[right]
    rest = np.setdiff1d(np.arange(len(given)), rows[right])
    part = _encode_singly(feature, written(rest.tolist()))
    column[rest] = part.columns[feature.name]
    return _Part({feature.name: column}, _renumber(part.reasons, rest), None)


def _find_regular(given: pl.Series, shape: Sequence[int]) -> tuple[Integers, Array]:
    """Find the rows whose lists have a shape and hold numbers, and return these as `(rows, *shape)`."""
    nothing = np.arange(0), np.zeros((0, *shape))
    rows, entries, flat = np.arange(len(given)), 1, given  # every row that is left has as many entries in `flat`
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
        return nothing  # which kind NumPy takes large integers for depends on their neighbours
    whole = flat.is_not_null().to_numpy().reshape(len(rows), entries).all(axis=1)
    return rows[whole], flat.filter(np.repeat(whole, entries)).to_numpy().reshape(-1, *shape)


def _renumber(reasons: Reasons, rows: Integers) -> Reasons:
    return {int(rows[row]): reason for row, reason in reasons.items()}


def read_texts(feature: Feature, texts: Sequence[str | None]) -> list[Any]:
    """Say what texts of a file without types stand for; a text that stands for nothing else is itself."""
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
    """Return the reason without the value it is about, so that reasons can be counted and no value is among them."""
    return reason.removeprefix(show(value)).partition(" [")[0].strip()
