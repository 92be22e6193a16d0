from __future__ import annotations

import io
import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal

from stepensemble.core.errors import InputMismatch
from stepensemble.core.preprocessing.columns import (
    array_from_bytes,
    array_to_bytes,
    bind_columns,
    columns_from_bytes,
    columns_from_json,
    columns_to_bytes,
    columns_to_json,
    stack_columns,
)

DTYPES = ["float32", "int32", "int64", "uint8", "int8"]


@st.composite
def any_columns(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.text("abcÄ= 中\"'", min_size=1, max_size=6), min_size=1, max_size=5, unique=True))
    rows = draw(st.integers(1, 4))
    columns = {}
    for name in names:
        dtype = draw(st.sampled_from(DTYPES))
        shape = (rows, *draw(st.just(()) | array_shapes(max_dims=2, max_side=3)))
        elements = {"allow_nan": False, "allow_infinity": False} if dtype == "float32" else None
        columns[name.strip() or "x"] = draw(arrays(dtype, shape, elements=elements))
    return columns


def assert_identical(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert list(first) == list(second)
    for name, one in first.items():
        assert (one.dtype, one.shape, one.tobytes()) == (second[name].dtype, second[name].shape, second[name].tobytes())


@given(any_columns())
def test_law_columns_come_back_from_json_bit_for_bit(columns: dict[str, Any]) -> None:
    carried = json.loads(json.dumps(columns_to_json(columns), allow_nan=False))
    assert_identical(columns_from_json(carried), columns)


@given(any_columns())
def test_law_columns_come_back_from_an_archive_bit_for_bit(columns: dict[str, Any]) -> None:
    assert_identical(columns_from_bytes(columns_to_bytes(columns)), columns)


@pytest.mark.parametrize("other", [1.0, -0.0, 0.5])
def test_a_column_of_zeros_and_ones_takes_a_byte_a_row_in_an_archive(other: float) -> None:
    columns = {"x": np.array([0.0, 1.0, other] * 1000, dtype=np.float32)}
    body = columns_to_bytes(columns)
    assert_identical(columns_from_bytes(body), columns)
    assert (len(body) < 4000 + 3 * 512) == (other == 1.0)  # beside the numbers, three entries with their headers


def test_an_archive_of_numbers_as_they_are_is_read_too() -> None:
    archive = io.BytesIO()
    np.savez(archive, np.array([0.0, 1.0], dtype=np.float32), names=np.array(["x"]))
    assert_identical(columns_from_bytes(archive.getvalue()), {"x": np.array([0.0, 1.0], dtype=np.float32)})


@given(arrays(st.sampled_from(["float32", "float64", "int32"]), array_shapes(max_dims=3)))
def test_law_an_array_comes_back_from_its_file_bit_for_bit(array: Any) -> None:
    back = array_from_bytes(array_to_bytes(array))
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_the_smallest_and_the_largest_float32_survive_json() -> None:
    extremes = np.array([1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -0.0, 0.1], dtype=np.float32)
    assert_identical(columns_from_json(json.loads(json.dumps(columns_to_json({"x": extremes})))), {"x": extremes})


def test_a_float32_column_is_a_plain_list_and_others_state_their_dtype() -> None:
    columns = {"x": np.array([1, 2], dtype=np.float32), "t": np.array([[1], [2]], dtype=np.uint8)}
    assert columns_to_json(columns) == {"x": [1.0, 2.0], "t": {"dtype": "uint8", "values": [[1], [2]]}}


def test_pickles_are_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        array_from_bytes(buffer.getvalue())
    archive = io.BytesIO()
    np.savez(archive, np.array([{"a": 1}], dtype=object), names=np.array(["x"]))
    with pytest.raises(ValueError, match="allow_pickle"):
        columns_from_bytes(archive.getvalue())


@given(st.permutations(["a", "b", "c", "d"]), st.integers(1, 4))
def test_law_stacking_by_name_permutes(names: list[str], most: int) -> None:
    columns = {name: np.full(3, float(index), dtype=np.float32) for index, name in enumerate("abcd")}
    stacked = stack_columns(columns, names[:most])
    assert stacked.shape == (3, most)
    assert stacked.dtype == np.float32
    assert stacked[0].tolist() == [float("abcd".index(name)) for name in names[:most]]


def test_a_tensor_alone_is_taken_as_it_is() -> None:
    tensor = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    assert stack_columns({"x": np.zeros(2, dtype=np.float32), "t": tensor}, ["t"]) is tensor


def test_a_single_column_keeps_its_two_dimensions() -> None:
    assert_array_equal(stack_columns({"x": np.array([1, 2], dtype=np.float32)}, ["x"]), [[1], [2]])


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputMismatch, match=r'no column named "b"; there are "a"'):
        stack_columns({"a": np.zeros(1, dtype=np.float32)}, ["a", "b"])


def test_a_tensor_is_not_stacked_with_others() -> None:
    columns = {"a": np.zeros(1, dtype=np.float32), "t": np.zeros((1, 2), dtype=np.float32)}
    with pytest.raises(InputMismatch, match="a tensor cannot be stacked"):
        stack_columns(columns, ["a", "t"])


def test_every_input_gets_its_own_columns() -> None:
    columns = {
        "x": np.array([1, 2], dtype=np.float32),
        "y": np.array([3, 4], dtype=np.float32),
        "t": np.arange(4, dtype=np.uint8).reshape(2, 2),
    }
    bound = bind_columns(columns, {"row": ["y", "x"], "image": ["t"], "once more": ["x"]})
    assert list(bound) == ["row", "image", "once more"]
    assert_array_equal(bound["row"], [[3, 1], [4, 2]])
    assert bound["image"] is columns["t"]
    assert_array_equal(bound["once more"], [[1], [2]])


def test_an_only_input_needs_no_name() -> None:
    columns = {name: np.full(2, ord(name), dtype=np.float32) for name in "abc"}
    assert_array_equal(bind_columns(columns, {"": ["b", "a"]})[""], stack_columns(columns, ["b", "a"]))


@pytest.mark.parametrize("names", [["a", "b"], ["a", "t"]])
def test_columns_that_one_input_cannot_take_are_refused_as_those_of_an_only_one(names: list[str]) -> None:
    columns = {"a": np.zeros(1, dtype=np.float32), "t": np.zeros((1, 2), dtype=np.float32)}
    with pytest.raises(InputMismatch) as alone:
        stack_columns(columns, names)
    with pytest.raises(InputMismatch) as bound:
        bind_columns(columns, {"sound": ["a"], "odd": names})
    assert str(bound.value) == str(alone.value)
