from __future__ import annotations

import json
import math
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import assume, given

from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    Feature,
    Log1p,
    MinMax,
    NumberFeature,
    Standard,
    TensorFeature,
)
from stepensemble.publishing.golden import draw_rows

NUMBERS = st.floats(-1e30, 1e30)


def column(feature: NumberFeature, rows: int = 50) -> list[Any]:
    return [row[feature.name] for row in draw_rows([feature], rows)]


def test_numbers_are_within_their_bounds_and_their_scalings_range() -> None:
    assert all(5 <= value <= 6 for value in column(NumberFeature("x", min=5, max=6)))
    assert all(-1 <= value <= 1 for value in column(NumberFeature("x")))
    assert all(20 <= value <= 40 for value in column(NumberFeature("x", min=0, max=120, scaling=Standard(30, 10))))
    assert all(0 <= value <= 8 for value in column(NumberFeature("x", min=0, scaling=MinMax(0, 8))))
    assert all(3 <= value <= 10 for value in column(NumberFeature("x", min=3, scaling=Log1p())))


def test_numbers_differ_from_row_to_row_even_if_bounds_and_scaling_disagree() -> None:
    above, below = NumberFeature("x", min=100, scaling=Standard(0, 1)), NumberFeature("x", max=-100)
    assert all(100 <= value <= 101 for value in column(above))
    assert all(-101 <= value <= -100 for value in column(below))
    assert len(set(column(above))) == len(set(column(below))) == 50


def test_categories_and_booleans_take_every_value() -> None:
    rows = draw_rows([CategoryFeature("word", ("a", "b", 3)), BooleanFeature("flag")], 50)
    assert {row["word"] for row in rows} == {"a", "b", 3}
    assert {row["flag"] for row in rows} == {True, False}


def test_tensors_have_their_shape_and_few_digits() -> None:
    (row,) = draw_rows([TensorFeature("image", (2, 3)), TensorFeature("bytes", (2,), "uint8")], 1)
    assert [len(line) for line in row["image"]] == [3, 3]
    assert all(len(str(value)) <= 5 for line in row["image"] for value in line)
    assert all(isinstance(value, int) for value in row["bytes"])


@st.composite
def features(draw: st.DrawFn) -> Feature:
    kind = draw(st.sampled_from(["number", "category", "boolean", "tensor"]))
    if kind == "category":
        vocabulary = draw(st.lists(st.text(max_size=5) | st.integers(), min_size=1, max_size=5, unique=True))
        return CategoryFeature("f", tuple(vocabulary), draw(st.sampled_from(["index", "one_hot"])))
    if kind == "boolean":
        return BooleanFeature("f")
    if kind == "tensor":
        dtype: Any = draw(st.sampled_from(["float32", "int32", "int64", "uint8", "int8"]))
        return TensorFeature("f", tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))), dtype)
    low, high = draw(st.none() | NUMBERS), draw(st.none() | NUMBERS)
    assume(low is None or high is None or low <= high)
    scaling: Any = draw(st.sampled_from([None, "standard", "min_max", "log1p"]))
    if scaling == "standard":
        scaling = Standard(draw(st.floats(-1e6, 1e6)), draw(st.floats(1e-3, 1e6)))
    elif scaling == "min_max":
        start = draw(st.floats(-1e6, 1e6))
        scaling = MinMax(start, start + draw(st.floats(1.0, 1e6)))
    elif scaling == "log1p":
        low = max(0.0, low or 0.0)
        assume(high is None or low <= high)
        scaling = Log1p()
    return NumberFeature("f", min=low, max=high, scaling=scaling)


@given(features(), st.integers(1, 5))
def test_law_drawn_rows_are_accepted_repeatable_and_survive_json(feature: Feature, rows: int) -> None:
    drawn = draw_rows([feature], rows)
    columns = normalize([feature], drawn)
    assert all(len(values) == rows for values in columns.values())
    assert all(math.isfinite(value) for values in columns.values() for value in values.ravel().tolist())
    assert draw_rows([feature], rows) == drawn == json.loads(msgspec.json.encode(drawn))
    assert draw_rows([feature], rows + 1)[:rows] == drawn
