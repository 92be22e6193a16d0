from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from stepensemble.conversion.parity import DRAWN_ROWS, Parity, Tolerance, compare_outputs, draw_inputs
from stepensemble.core.errors import InputMismatch
from stepensemble.runtimes import Quantization, Signature, Tensor


def rows(*values: Any) -> Any:
    return np.array(values, dtype=np.float32)


def compare(original: Any, converted: Any) -> Parity:
    return compare_outputs({"y": original}, {"y": converted}, None)


def test_the_greatest_difference_counts() -> None:
    parity = compare(rows([1.0], [2.0], [3.0]), rows([1.0], [2.25], [2.875]))
    assert parity == Parity(max_difference=0.25, deviation=0.25 / 3, labels_changed=0, rows=3)


def test_a_label_is_the_index_of_the_greatest_number() -> None:
    parity = compare(rows([0.4, 0.6], [0.5, 0.5], [0.9, 0.1]), rows([0.6, 0.4], [0.5, 0.5], [0.8, 0.2]))
    assert (parity.labels_changed, parity.rows) == (1, 3)


def test_a_single_number_has_no_label_by_default() -> None:
    original, converted = {"y": rows([0.49], [0.2])}, {"y": rows([0.51], [0.3])}
    assert compare_outputs(original, converted, None).labels_changed == 0
    assert compare_outputs(original, converted, lambda output: output[:, 0] >= 0.5).labels_changed == 1


def test_text_is_its_own_label() -> None:
    parity = compare(np.array(["no", "yes"]), np.array(["no", "no"]))
    assert parity == Parity(max_difference=0.0, deviation=0.0, labels_changed=1, rows=2)


def test_a_row_counts_once_however_many_outputs_change_their_label() -> None:
    original = {"a": rows([0, 1], [0, 1]), "b": rows([0, 1], [0, 1])}
    converted = {"a": rows([1, 0], [0, 1]), "b": rows([1, 0], [0, 1])}
    assert compare_outputs(original, converted, None).labels_changed == 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (math.nan, math.nan, 0.0),
        (math.inf, math.inf, 0.0),
        (math.nan, 1.0, math.inf),
        (math.inf, -math.inf, math.inf),
        (math.inf, 1.0, math.inf),
    ],
)
def test_what_is_not_finite_is_the_same_or_infinitely_apart(one: float, other: float, expected: float) -> None:
    assert compare(rows([one]), rows([other])).max_difference == expected


@pytest.mark.parametrize(
    "converted", [{}, {"y": rows([1.0, 2.0])}, {"y": rows([1.0], [2.0])}, {"y": np.array([["1"]])}]
)
def test_another_shape_or_kind_is_infinitely_apart(converted: dict[str, Any]) -> None:
    parity = compare_outputs({"y": rows([1.0])}, converted, None)
    assert not parity.holds(Tolerance())
    assert parity.max_difference == math.inf


def test_a_tolerance_bounds_both() -> None:
    assert Parity(300.0, 1e-4, 0, 16).holds(Tolerance())
    assert not Parity(1e-6, 1.1e-4, 0, 16).holds(Tolerance())
    assert not Parity(0.0, 0.0, 1, 16).holds(Tolerance())
    assert Parity(0.5, 0.5, 2, 16).holds(Tolerance(deviation=0.5, labels=2))


def test_large_units_have_a_large_scale_and_each_output_its_own() -> None:
    # A float32 of 300,000 has neighbours 1/32 apart; two of them are 2e-7 of it.
    prices, shares = rows([300_000.0], [250_000.0]), rows([0.5], [0.25])
    near = {"price": prices + np.float32(0.0625), "share": shares}
    parity = compare_outputs({"price": prices, "share": shares}, near, None)
    assert (parity.max_difference, parity.deviation) == (0.0625, pytest.approx(0.0625 / 300_000))
    assert parity.holds(Tolerance())
    # The same distance of a share is an eighth of its scale.
    far = {"price": prices, "share": shares + np.float32(0.0625)}
    parity = compare_outputs({"price": prices, "share": shares}, far, None)
    assert parity.deviation == 0.125
    assert not parity.holds(Tolerance())


def test_parity_has_a_description() -> None:
    assert str(Parity(6e-8, 1e-7, 0, 16)) == "at most 6.0e-08 apart, 1.0e-07 of the output's scale, on 16 rows"
    assert str(Parity(0.25, 0.5, 2, 16)).endswith("5.0e-01 of the output's scale, on 16 rows, 2 labels changed")


# Rows that are drawn


def signature(*inputs: Tensor, batch: int | None = None) -> Signature:
    return Signature("serving_default", inputs, (Tensor("y", "float32", (1,)),), batch)


def test_drawn_rows_fit_every_kind_of_input_and_are_always_the_same() -> None:
    described = signature(
        Tensor("numbers", "float32", (3,)),
        Tensor("doubles", "float64", ()),
        Tensor("image", "uint8", (4, None, 3)),
        Tensor("index", "int64", (1,)),
        Tensor("flag", "bool", ()),
        Tensor("quantized", "int8", (2,), Quantization(0.5, 0)),
    )
    drawn, again = draw_inputs(described), draw_inputs(described)
    assert {name: (values.dtype.name, values.shape) for name, values in drawn.items()} == {
        "numbers": ("float32", (16, 3)),
        "doubles": ("float64", (16,)),
        "image": ("uint8", (16, 4, 32, 3)),
        "index": ("int64", (16, 1)),
        "flag": ("bool", (16,)),
        "quantized": ("float32", (16, 2)),
    }
    assert set(np.unique(drawn["index"])) == {0, 1}
    for name, values in drawn.items():
        np.testing.assert_array_equal(values, again[name])


@pytest.mark.parametrize(("batch", "expected"), [(None, DRAWN_ROWS), (1, DRAWN_ROWS), (5, 5)])
def test_as_many_rows_are_drawn_as_the_model_takes(batch: int | None, expected: int) -> None:
    assert len(draw_inputs(signature(Tensor("x", "float32", (1,)), batch=batch))["x"]) == expected


@pytest.mark.parametrize(
    ("tensor", "reason"), [(Tensor("x", "string", ()), "is text"), (Tensor("x", "float32", None), "no known shape")]
)
def test_inputs_that_cannot_be_drawn_must_be_given(tensor: Tensor, reason: str) -> None:
    with pytest.raises(
        InputMismatch, match=f'the input "x" .*{reason}, so no rows can be drawn for it: give golden rows'
    ):
        draw_inputs(signature(tensor))
