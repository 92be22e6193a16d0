"""The fast path for one row: encodes it to the columns of `encoding.normalize`, to the last bit, many times as fast.

Where it is used: `Ensemble.predict`, for a payload of one row. Why: an array operation on one number takes about as
long as twenty operations on Python's own numbers. So values of a category or a boolean are looked up in what
`encoding.encode` computed beforehand, and a number is scaled as a float. No row is rejected here: if any check fails,
the function returns None, and `normalize` encodes the row or reports its problems.
`test_law_the_fast_path_encodes_a_row_as_normalize_does_bit_for_bit` (tests/unit/core/preprocessing/test_single_row.py)
holds that both paths return equal columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from stepensemble.core.arrays import Array
from stepensemble.core.preprocessing.encoding import all_column_names, encode
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    Feature,
    Log1p,
    MinMax,
    NumberFeature,
    Scaling,
    Standard,
)

EncodeRow = Callable[[Any], Array | None]
"""Encodes a row to all its columns, `(1, columns)` of float32; None where a check fails."""

BindRow = Callable[[Array], list[Array]]
"""Binds all columns of a row to a member's inputs, in their order; see `columns.bind_columns`."""

_Encode = Callable[[Any], Sequence[float] | None]
"""Encodes a feature's value to its columns; None where a check fails."""

EXACT = 2**53
"""Every integer up to this one is exact as a float."""

LARGEST = float(np.finfo(np.float32).max)


def prepare_row(features: Sequence[Feature]) -> EncodeRow | None:
    """Return a function that encodes a row; None if a feature is a tensor, an image or a number of 64 bits."""
    encoders: list[tuple[str, _Encode]] = []
    for feature in features:
        if isinstance(feature, NumberFeature) and feature.column_dtype == "float32":
            encoders.append((feature.name, _prepare_number(feature)))
        elif isinstance(feature, CategoryFeature | BooleanFeature):
            encoders.append((feature.name, _prepare_choice(feature)))
        else:
            return None
    names = frozenset(name for name, _ in encoders)

    def encode_row(row: Any) -> Array | None:
        if type(row) is not dict or not row.keys() <= names:
            return None
        numbers: list[float] = []
        for name, encode_value in encoders:
            encoded = encode_value(row.get(name))
            if encoded is None:
                return None
            numbers += encoded
        return np.array([numbers], np.float32)

    return encode_row


def prepare_binding(features: Sequence[Feature], inputs: Mapping[str, Sequence[str]]) -> BindRow:
    """Return a function that stacks a member's columns, given that `prepare_row` encodes these features.

    Args:
        features: as the release has them.
        inputs: input name to its columns, in order.
    """
    columns = all_column_names(features)
    every = tuple(range(len(columns)))
    taken = [tuple(map(columns.index, names)) for names in inputs.values()]
    places = [None if some == every else np.array(some) for some in taken]
    return lambda row: [row if some is None else row.take(some, axis=1) for some in places]


def _encode_one(feature: Feature, value: Any) -> Sequence[float] | None:
    columns, reasons = encode(feature, [value])
    return None if reasons else tuple(float(column[0]) for column in columns.values())


def _prepare_choice(feature: CategoryFeature | BooleanFeature) -> _Encode:
    values: Sequence[Any] = (False, True)
    types: Collection[type] = {bool}
    other: Sequence[float] | None = None
    if isinstance(feature, CategoryFeature):
        values, types = feature.vocabulary, {str, int, float}
        # If unknown values are a category of their own, it is named "other", so the vocabulary has no such value.
        other = _encode_one(feature, "other") if feature.unknown == "other" else None
    known = {value: _encode_one(feature, value) for value in values}
    missing = _encode_one(feature, None)

    def encode_choice(value: Any) -> Sequence[float] | None:
        if value is None:
            return missing
        kind = type(value)
        if kind not in types:  # True equals 1, and a list has no hash
            return None
        return known.get(value, None if kind is float else other)

    return encode_choice


def _prepare_number(feature: NumberFeature) -> _Encode:
    missing = _encode_one(feature, None)
    low = -math.inf if feature.min is None else feature.min
    high = math.inf if feature.max is None else feature.max
    scale = _prepare_scaling(feature.scaling)

    def encode_number(value: Any) -> Sequence[float] | None:
        if type(value) is not float:
            if value is None:
                return missing
            if type(value) is not int or not -EXACT <= value <= EXACT:
                return None
            value = float(value)
        if not low <= value <= high:
            return None
        scaled = scale(value)
        return (scaled,) if -LARGEST <= scaled <= LARGEST else None

    return encode_number


def _prepare_scaling(scaling: Scaling | None) -> Callable[[float], float]:
    match scaling:
        case None:
            return float
        case Standard(mean=mean, std=std):
            return lambda number: (number - mean) / std
        case MinMax(min=low, max=high):
            width = high - low
            return lambda number: (number - low) / width
        case Log1p():  # NumPy's log1p, which may differ in its last bit from that of `math`
            return lambda number: float(np.log1p(number))
