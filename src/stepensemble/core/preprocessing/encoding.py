"""Validates, encodes and scales rows: from JSON values to named columns of numbers, the same for every member.

A scalar column is of shape `(rows,)`, float32 unless a number feature declares float64; a tensor's column has its
declared dtype and shape `(rows, *shape)`.
Arithmetic is float64 until the last step. All work is done column by column; single rows are visited only to explain a
problem.

Images are read by a function that the caller passes (`Images`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt

from stepensemble.core.arrays import Array
from stepensemble.core.errors import InvalidPayload
from stepensemble.core.preprocessing.columns import Columns
from stepensemble.core.problems import Problem, enumerate_values, show, suggest
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    Feature,
    ImageFeature,
    Log1p,
    MinMax,
    NumberFeature,
    Scaling,
    Standard,
    TensorFeature,
    column_names,
)

Reasons = dict[int, tuple[str, str]]
"""Why values of a feature are rejected: row number to (message, remedy)."""

Images = Callable[[ImageFeature, Sequence[Any]], tuple[Array, Reasons]]
"""Reads an image feature's values: samples, uint8 of shape `(rows, height, width, channels)`, and the reasons;
samples of rows that have a reason are meaningless."""

IMAGE_BYTES = 32 * 1024 * 1024
"""Most bytes of an execution's column of images: Normalize has 512 MB for it, copies of it, and a decoded file."""

MAX_COMPARISONS = 100_000
"""Most comparisons of wrong values with a vocabulary, or of wrong names with features, for suggestions: a second."""

NUMERAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")

BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Blanks allowed around a numeral: Unicode's White_Space, which Polars strips too. `str.strip` alone also strips U+001C
to U+001F, which `float` rejects in ASCII text and accepts in other text."""


def all_column_names(features: Sequence[Feature]) -> tuple[str, ...]:
    """Return the names of all columns, in the manifest's order."""
    return tuple(name for feature in features for name in column_names(feature))


def refuse_images(feature: ImageFeature, values: Sequence[Any]) -> tuple[Array, Reasons]:
    """Reject every image: the `Images` for callers that read none."""
    reason = ("is an image, which is not read here", "send it in the payload of an execution")
    return np.zeros((len(values), *feature.size, feature.channels), np.uint8), dict.fromkeys(range(len(values)), reason)


def normalize(
    features: Sequence[Feature],
    rows: Sequence[Any],
    *,
    locate: Callable[[int], str] = "$.instances[{}]".format,
    images: Images = refuse_images,
) -> Columns:
    """Validate, encode and scale rows.

    Args:
        features: as the manifest declares them.
        rows: one mapping for each row, feature name to value; an absent key and `None` both mean a missing value.
        locate: the JSON path of a row, for messages.
        images: reads images.

    Raises:
        InvalidPayload: with every bad field of every row.
    """
    columns: Columns = {}
    found: list[tuple[int, int, Problem]] = []
    shapeless = {index for index, row in enumerate(rows) if type(row) is not dict and not isinstance(row, Mapping)}
    objects = [{} if index in shapeless else row for index, row in enumerate(rows)] if shapeless else rows
    found += [
        (row, 0, Problem(locate(row), f"{show(rows[row])} is not an object", "write an object")) for row in shapeless
    ]
    for position, feature in enumerate(features):
        encoded, reasons = encode(feature, [row.get(feature.name) for row in objects], images)
        columns.update(encoded)
        found += [
            (row, position, Problem(f"{locate(row)}.{feature.name}", *reason))
            for row, reason in reasons.items()
            if row not in shapeless
        ]
    names = [feature.name for feature in features]
    found += [(row, len(names), problem) for row, problem in _unknown_fields(names, objects, locate)]
    if found:
        raise InvalidPayload([problem for _, _, problem in sorted(found, key=lambda entry: entry[:2])])
    return columns


def encode(feature: Feature, values: Sequence[Any], images: Images = refuse_images) -> tuple[Columns, Reasons]:
    """Encode one feature's values, `None` standing for a missing one; `images` reads images.

    Returns the columns, which are meaningless in rows with a reason, and the reasons.
    """
    if isinstance(feature, NumberFeature):
        return _encode_number(feature, values)
    if isinstance(feature, CategoryFeature):
        return _encode_category(feature, values)
    if isinstance(feature, BooleanFeature):
        return _encode_boolean(feature, values)
    if isinstance(feature, ImageFeature):
        return _encode_image(feature, values, images)
    return _encode_tensor(feature, values)


def _unknown_fields(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], locate: Callable[[int], str]
) -> Iterator[tuple[int, Problem]]:
    known = set(names)
    compared = 0
    for index, row in enumerate(rows):
        for extra in () if row.keys() <= known else [key for key in row if key not in known]:
            near = suggest(extra, [name for name in names if name not in row]) if compared < MAX_COMPARISONS else ""
            compared += len(names)
            yield (
                index,
                Problem(f"{locate(index)}.{extra}", f"{show(extra)} is not a feature", f"remove it{near}"),
            )


def _missing_reason(example: str) -> tuple[str, str]:
    return "is missing", f'give {example}, or set "missing" in the manifest'


def _encode_number(feature: NumberFeature, values: Sequence[Any]) -> tuple[Columns, Reasons]:
    numbers, missing, reasons = _read_numbers(values)
    if missing.any():
        if feature.missing is not None:
            numbers[missing] = feature.missing
        else:
            reasons.update(dict.fromkeys(np.flatnonzero(missing).tolist(), _missing_reason("a number")))
    if reasons:
        numbers[list(reasons)] = np.nan
    column, within = scale_numbers(feature, numbers)
    if not within.all():
        for row in np.flatnonzero(~within & ~np.isnan(numbers)).tolist():
            reasons[row] = _range_reason(values[row], feature)
    for row in _list_infinite(column):
        bits = _bits(feature.column_dtype)
        reasons[row] = (f"{show(values[row])} is too large for a {bits}-bit number", "use a smaller one")
    return {feature.name: column}, reasons


def scale_numbers(
    feature: NumberFeature, numbers: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """Scale numbers to the feature's column.

    Args:
        feature: with bounds and scaling.
        numbers: finite, or NaN for a missing number.

    Returns the column, infinite where a number is too large for it, and flags of the numbers within the bounds; the
    column is 0 where a number is missing or out of bounds.
    """
    low = -np.inf if feature.min is None else feature.min
    high = np.inf if feature.max is None else feature.max
    within: npt.NDArray[np.bool_] = (numbers >= low) & (numbers <= high)
    with np.errstate(over="ignore"):
        if within.all():
            return _scale(numbers, feature.scaling).astype(feature.column_dtype), within
        scaled = np.zeros(len(numbers), dtype=np.float64)
        scaled[within] = _scale(numbers[within], feature.scaling)
        return scaled.astype(feature.column_dtype), within


def _bits(dtype: str) -> int:
    return 64 if dtype == "float64" else 32


def _list_infinite(numbers: npt.NDArray[np.floating]) -> list[int]:
    """Return the rows whose number is not finite; the usual case, none, is checked first."""
    finite = np.isfinite(numbers)
    return [] if finite.all() else np.flatnonzero(~finite).tolist()


def _read_numbers(values: Sequence[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], Reasons]:
    """Read numbers and numerals; True, NaN, infinities and any other text are rejected with a reason."""
    reasons: Reasons = {}
    missing = np.zeros(len(values), dtype=bool)
    types = set(map(type, values))
    if types <= {int, float, NoneType}:
        known = values
        if NoneType in types:
            missing = np.array([value is None for value in values])
            known = [0.0 if value is None else value for value in values]
        with suppress(OverflowError):
            numbers = np.array(known, dtype=np.float64)
            for row in _list_infinite(numbers):
                reasons[row] = _not_finite_reason(values[row])
            return numbers, missing, reasons
        missing[:] = False
    numbers = np.zeros(len(values), dtype=np.float64)
    for row, value in enumerate(values):
        if value is None:
            missing[row] = True
        elif isinstance(value, bool) or not isinstance(value, int | float | str | np.integer | np.floating):
            reasons[row] = (f"{show(value)} is not a number", "write a number")
        else:
            try:
                number = read_numeral(value) if isinstance(value, str) else float(value)
            except OverflowError:
                number = math.inf
            if number is None:
                reasons[row] = (f"{show(value)} is not a number", "write a number, without unit or words")
                continue
            numbers[row] = number
            if not np.isfinite(numbers[row]):
                numbers[row] = 0.0
                reasons[row] = _not_finite_reason(value)
    return numbers, missing, reasons


def read_numeral(text: str) -> float | None:
    """Return the number that a text holds, infinite if it is too large; None if it holds none."""
    numeral = text.strip(BLANKS)
    return float(numeral) if NUMERAL.fullmatch(numeral) else None


def _not_finite_reason(value: object) -> tuple[str, str]:
    return f"{show(value)} is not a finite number", "write a finite number, or null where it is missing"


def _range_reason(value: object, feature: NumberFeature) -> tuple[str, str]:
    if feature.min is None:
        allowed = f"at most {feature.max:.15g}"
    elif feature.max is None:
        allowed = f"at least {feature.min:.15g}"
    else:
        allowed = f"between {feature.min:.15g} and {feature.max:.15g}"
    return f"{show(value)} is out of range", f"use a number {allowed}"


def _scale(numbers: npt.NDArray[np.float64], scaling: Scaling | None) -> npt.NDArray[np.float64]:
    match scaling:
        case None:
            return numbers
        case Standard(mean=mean, std=std):
            return (numbers - mean) / std
        case MinMax(min=low, max=high):
            return (numbers - low) / (high - low)
        case Log1p():
            return np.log1p(numbers)


def _encode_category(feature: CategoryFeature, values: Sequence[Any]) -> tuple[Columns, Reasons]:
    index_of: dict[Any, int] = {value: index for index, value in enumerate(feature.vocabulary)}
    filled = [feature.missing if value is None else value for value in values]
    if set(map(type, filled)) <= {str, int, float}:
        indices = np.array([index_of.get(value, -1) for value in filled], dtype=np.int64)
    else:  # True equals 1 and a list has no hash: neither is ever in a vocabulary
        indices = np.array(
            [
                index_of.get(value, -1)
                if isinstance(value, str | int | float | np.integer | np.floating)
                and value is not True
                and value is not False
                else -1
                for value in filled
            ],
            dtype=np.int64,
        )
    unknown = indices < 0
    reasons = _place_unknown(feature, filled, np.flatnonzero(unknown).tolist(), indices) if unknown.any() else {}
    names = column_names(feature)
    if feature.encoding == "index":
        return {names[0]: indices.astype(np.float32)}, reasons
    return {name: (indices == index).astype(np.float32) for index, name in enumerate(names)}, reasons


def _place_unknown(
    feature: CategoryFeature, values: Sequence[Any], rows: Sequence[int], indices: npt.NDArray[np.int64]
) -> Reasons:
    """Give rows whose value is not in the vocabulary the index of "other", if there is one; else a reason."""
    reasons: Reasons = {}
    size = len(feature.vocabulary)
    allowed = enumerate_values(feature.vocabulary)
    # A suggestion compares with the whole vocabulary, so thousands of wrong values must not each compute one.
    hints: dict[str, str] = {}
    for row in rows:
        value = values[row]
        if value is None:
            reasons[row] = _missing_reason(f"one of {allowed}")
        elif feature.unknown == "other" and isinstance(value, str | int) and not isinstance(value, bool):
            indices[row] = size
        else:
            shown = show(value)
            if shown not in hints and len(hints) * size < MAX_COMPARISONS:
                hints[shown] = suggest(value, feature.vocabulary)
            reasons[row] = (f"{shown} is not in the vocabulary", f"use one of {allowed}{hints.get(shown, '')}")
    return reasons


def _encode_boolean(feature: BooleanFeature, values: Sequence[Any]) -> tuple[Columns, Reasons]:
    filled = [feature.missing if value is None else value for value in values]
    reasons: Reasons = {}
    for row, value in enumerate(filled):
        if value is None:
            reasons[row] = _missing_reason("true or false")
        elif not isinstance(value, bool):
            reasons[row] = (f"{show(value)} is neither true nor false", "write true or false")
    return {feature.name: np.array([value is True for value in filled], dtype=np.float32)}, reasons


def _encode_tensor(feature: TensorFeature, values: Sequence[Any]) -> tuple[Columns, Reasons]:
    shape, dtype = tuple(feature.shape), np.dtype(feature.dtype)
    reasons: Reasons = {}
    column = np.zeros((len(values), *shape), dtype=dtype)
    for row, value in enumerate(values):  # a row here is a whole array: the loop is over arrays, not numbers
        try:
            column[row] = _read_tensor(value, shape, dtype)
        except _Refused as refused:
            reasons[row] = refused.reason
    return {feature.name: column}, reasons


class _Refused(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        self.reason = (message, remedy)


def _read_tensor(value: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    expected = f"nested lists of numbers of shape {list(shape)}"
    if value is None:
        raise _Refused("is missing", f"give {expected}")
    try:
        array = np.asarray(value)
    except ValueError:
        raise _Refused("has rows of different lengths", f"give {expected}") from None
    if array.dtype.kind not in "iuf" or _holds_boolean(value):
        raise _Refused("holds something that is not a number", f"give {expected}")
    if array.shape != shape:
        raise _Refused(f"has shape {list(array.shape)}", f"give {expected}")
    if not np.isfinite(array).all():
        raise _Refused("holds NaN or an infinity", "give finite numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise _Refused(f"holds a number too large for a {_bits(dtype.name)}-bit number", "use smaller ones")
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        bounds = np.iinfo(dtype)
        raise _Refused(
            f"holds a number that is not an {dtype.name}",
            f"give whole numbers between {bounds.min} and {bounds.max}",
        )
    return cast


def _encode_image(feature: ImageFeature, values: Sequence[Any], images: Images) -> tuple[Columns, Reasons]:
    most = max(IMAGE_BYTES // (math.prod(feature.shape) * np.dtype(feature.dtype).itemsize), 1)
    if len(values) > most:
        reason = (f"is one of {len(values):,} images of this size", f"send at most {most:,} in one execution")
        nothing = np.zeros((len(values), *feature.shape), feature.dtype)
        return {feature.name: nothing}, dict.fromkeys(range(most, len(values)), reason)
    missing = [row for row, value in enumerate(values) if value is None]
    given = [row for row, value in enumerate(values) if value is not None]
    samples, found = images(feature, [values[row] for row in given])
    reasons = {given[row]: reason for row, reason in found.items()}
    reasons |= dict.fromkeys(missing, ("is missing", "give an image as base64 text"))
    column = np.zeros((len(values), *feature.shape), feature.dtype)
    column[given] = scale_samples(feature, samples)
    return {feature.name: column}, reasons


def scale_samples(feature: ImageFeature, samples: Array) -> Array:
    """Scale samples to an image feature's column.

    Args:
        feature: with scale, mean, std and layout.
        samples: uint8 of shape `(rows, height, width, channels)`.

    Returns the column, of shape `(rows, *feature.shape)`.
    """
    scaled = samples
    if feature.dtype == "float32":
        mean = np.array(feature.mean or [0.0] * feature.channels)
        std = np.array(feature.std or [1.0] * feature.channels)
        # A channel has 256 different samples: each is computed once, in 64 bits.
        table = ((np.arange(256)[:, None] / feature.scale - mean) / std).astype(np.float32)
        scaled = np.stack([table[samples[..., channel], channel] for channel in range(feature.channels)], axis=-1)
    if feature.layout == "CHW":
        scaled = scaled.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(scaled).reshape(len(samples), *feature.shape)


def _holds_boolean(value: object) -> bool:
    """Return whether nested lists hold True or False, which NumPy reads as 1 and 0 beside numbers."""
    if isinstance(value, list | tuple):
        return any(map(_holds_boolean, value))
    return isinstance(value, bool)
