from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from stepensemble.core.errors import InvalidPayload
from stepensemble.core.preprocessing.columns import bind_columns
from stepensemble.core.preprocessing.encoding import all_column_names, normalize
from stepensemble.core.preprocessing.single_row import EncodeRow, prepare_binding, prepare_row
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    Feature,
    ImageFeature,
    Log1p,
    MinMax,
    NumberFeature,
    Standard,
    TensorFeature,
)

FEATURES: tuple[Feature, ...] = (
    NumberFeature("plain"),
    NumberFeature("bounded", min=-1, max=1, missing=0.25),
    NumberFeature("standard", scaling=Standard(3.0, 0.7)),
    NumberFeature("min_max", missing=0.1, scaling=MinMax(-5, 7)),
    NumberFeature("log1p", min=0, scaling=Log1p()),
    CategoryFeature("index", ("a", 3, "c"), missing="c"),
    CategoryFeature("place", (1, 2, "3"), unknown="other"),
    CategoryFeature("one_hot", ("a", "b"), "one_hot", unknown="other", missing="b"),
    BooleanFeature("boolean"),
    BooleanFeature("known", missing=True),
)
PLAIN: dict[str, Any] = {"plain": 1, "standard": 2.5, "log1p": 0.3, "index": "a", "place": 2, "boolean": False}
"""Right in what is not filled where it is missing."""

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 4),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.floats(-10, 10),
    st.sampled_from(
        ["a", "b", "c", "3", "1.5", "other", "", 3.0, 1e39, -0.0, 10**400, [1], {}, np.float64(1), np.int64(3)]
    ),
)
ROWS = st.dictionaries(st.sampled_from([feature.name for feature in FEATURES]), VALUES)


def prepared(features: tuple[Feature, ...]) -> EncodeRow:
    encode = prepare_row(features)
    assert encode is not None
    return encode


def columns_or_none(row: Any) -> bytes | None:
    try:
        columns = normalize(FEATURES, [row])
    except InvalidPayload:
        return None
    return np.stack([*columns.values()], axis=1).tobytes()


@settings(max_examples=500)
@given(ROWS)
@example({"log1p": 1e308})
@example({"min_max": -1.7e308})
@example({"plain": 3.4028235677973366e38})  # half a step above the largest float32: rounds to infinity
@example({"place": 2.5})  # a word or a whole number may be another one, and this is neither
def test_law_the_fast_path_encodes_a_row_as_normalize_does_bit_for_bit(values: dict[str, Any]) -> None:
    encoded = prepared(FEATURES)(PLAIN | values)
    if encoded is not None:
        assert (encoded.dtype, encoded.flags.c_contiguous) == (np.float32, True)
        assert encoded.tobytes() == columns_or_none(PLAIN | values)


@given(st.floats(0, 1), st.integers(-(10**9), 10**9), st.sampled_from(["a", 3, 3.0, "c"]), st.booleans())
def test_what_is_plainly_right_is_encoded(number: float, whole: int, category: Any, flag: bool) -> None:
    row = PLAIN | {"bounded": number, "log1p": number, "standard": whole, "index": category, "known": flag}
    assert prepared(FEATURES)(row) is not None
    assert prepared(FEATURES)(row | {"one_hot": "z", "min_max": None}) is not None


@pytest.mark.parametrize(
    "row",
    [
        PLAIN | {"plain": "1"},  # a numeral, which is right, and read by `normalize`
        PLAIN | {"plain": True},
        PLAIN | {"plain": None},
        PLAIN | {"plain": float("nan")},
        PLAIN | {"bounded": 2},
        PLAIN | {"index": "z"},
        PLAIN | {"index": True},
        PLAIN | {"boolean": 1},
        PLAIN | {"unheard of": 1},
        {},
        [],
        None,
    ],
)
def test_what_is_not_plainly_right_is_left_to_normalize(row: Any) -> None:
    assert prepared(FEATURES)(row) is None


@pytest.mark.parametrize("feature", [TensorFeature("tensor", (2,)), ImageFeature("picture", (2, 2))])
def test_rows_with_tensors_and_images_are_not_encoded_here(feature: Feature) -> None:
    assert prepare_row((NumberFeature("x"), feature)) is None


def test_members_take_their_columns_as_from_many_rows() -> None:
    row = prepared(FEATURES)(PLAIN)
    assert row is not None
    names = all_column_names(FEATURES)
    for inputs in ({"": names}, {"": names[::-1]}, {"one": names[:2], "other": (names[4], names[1])}, {"": names[3:4]}):
        bound = dict(zip(inputs, prepare_binding(FEATURES, inputs)(row), strict=True))
        expected = bind_columns(normalize(FEATURES, [PLAIN]), inputs)
        assert {name: value.tolist() for name, value in bound.items()} == {
            name: value.tolist() for name, value in expected.items()
        }
        assert all(value.flags.c_contiguous and value.dtype == np.float32 for value in bound.values())
