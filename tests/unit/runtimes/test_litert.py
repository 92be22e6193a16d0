from __future__ import annotations

import gc
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from builders import MODELS, model
from stepensemble.core.aggregation.canonical import check_output
from stepensemble.core.errors import InputMismatch, InvalidOutput, ModelRefused
from stepensemble.runtimes import Model, Quantization, Signature, Tensor, load_model
from stepensemble.runtimes.model import MAX_BATCH_ROWS


def load(name: str, signature: str | None = None) -> Model:
    return load_model("litert", model(name), signature)


def column(*values: float) -> Any:
    return np.array(values, dtype=np.float32)[:, None]


def test_half_plus_two() -> None:
    assert load("half_plus_two").predict(column(0, 1, -4)).tolist() == [[2.0], [2.5], [0.0]]


def test_the_sigmoid_is_a_sigmoid() -> None:
    expected = [[1 / (1 + math.exp(-x))] for x in (-2, 0, 3)]
    np.testing.assert_allclose(load("sigmoid").predict(column(-2, 0, 3)), expected, rtol=1e-6)


def test_the_softmax_is_a_softmax() -> None:
    got = load("softmax").predict(np.array([[0, 0], [math.log(2), math.log(5)]], dtype=np.float32))
    np.testing.assert_allclose(got, [[1 / 3] * 3, [2 / 8, 5 / 8, 1 / 8]], rtol=1e-6)


def test_a_label_is_a_whole_number() -> None:
    got = load("sign_label").predict(column(-1, 0, 1))
    assert (got.dtype, got.tolist()) == (np.int32, [[0], [0], [1]])


def test_a_logarithm_below_zero_is_not_a_number() -> None:
    assert np.isnan(load("logarithm").predict(column(-1))).all()


def test_a_tensor_of_two_by_two_is_summed() -> None:
    got = load("two_by_two").predict(np.arange(8, dtype=np.float32).reshape(2, 2, 2))
    assert got.tolist() == [[0 + 1 + 2 + 3], [4 + 5 + 6 + 7]]


@pytest.mark.parametrize("name", ["bare", "bare_one"])
def test_an_input_of_a_bare_number_a_row_takes_one_column(name: str) -> None:
    loaded = load(name)
    assert (loaded.signature.inputs[0].shape, loaded.signature.outputs[0].shape) == ((), ())
    for values in (column(1, 2, 5), column(1, 2, 5)[:, 0]):
        assert loaded.predict(values).tolist() == [2.5, 3.0, 4.5]
    assert loaded.prepare({"": column(0)})([column(5)]).tolist() == [4.5]
    with pytest.raises(InputMismatch, match=r"the model takes one number a row, and its columns give \[2\]"):
        loaded.predict(np.zeros((3, 2), dtype=np.float32))


def test_the_number_of_rows_may_change_from_call_to_call() -> None:
    loaded = load("half_plus_two")
    for rows in (1, 5, 2, 1000, 1):
        assert loaded.predict(np.zeros((rows, 1), dtype=np.float32)).tolist() == [[2.0]] * rows


def test_an_output_does_not_change_at_the_next_call() -> None:
    loaded = load("half_plus_two")
    first = loaded.predict(column(2))
    loaded.predict(column(100))
    assert first.tolist() == [[3.0]]


def test_rows_have_the_same_output_together_and_alone() -> None:
    loaded, values = load("sigmoid"), np.random.default_rng(3).normal(0, 3, (100, 1)).astype(np.float32)
    alone = np.concatenate([loaded.predict(values[row : row + 1]) for row in range(100)])
    np.testing.assert_allclose(loaded.predict(values), alone, rtol=1e-6)


def test_many_rows_have_the_same_output_in_parts_and_together() -> None:
    numbers = np.arange(2 * MAX_BATCH_ROWS + 3, dtype=np.float32)[:, None]
    got = load("half_plus_two").predict(numbers)
    np.testing.assert_array_equal(got, numbers / 2 + 2)  # halves of whole numbers below 2^24: nothing is rounded


def returning(function: Callable[[Any], Any]) -> Model:
    """Return a model that applies a function to the column of all rows of a call."""
    signature = Signature(None, (Tensor("x", "float32", (1,)),), (Tensor("y", "float32", None),), None)
    return Model(signature, lambda values, _: function(values[0]))


def test_an_output_without_an_entry_a_row_is_rejected_for_few_and_many_rows() -> None:
    for rows in (2, MAX_BATCH_ROWS + 1):
        with pytest.raises(InvalidOutput, match=rf"the output has shape \[\] for {rows} rows"):
            check_output(returning(np.sum).predict(np.ones((rows, 1), np.float32)), rows)
    with pytest.raises(InvalidOutput, match=r"the output has shape \[1, 2\] for 2 rows"):
        check_output(returning(np.transpose).predict(np.ones((2, 1), np.float32)), 2)
    with pytest.raises(InvalidOutput, match=r'no entry for each row: .* the shapes "\[1, 16384\]", "\[1, 1\]"'):
        returning(np.transpose).predict(np.ones((MAX_BATCH_ROWS + 1, 1), np.float32))


def test_a_model_with_a_batch_of_one_is_called_row_by_row() -> None:
    assert load("fixed_batch_one").predict(column(0, 1, 2)).tolist() == [[2.0], [2.5], [3.0]]


def test_a_model_of_two_rows_takes_two() -> None:
    assert load("fixed_batch_two").predict(column(0, 1)).tolist() == [[2.0], [2.5]]
    with pytest.raises(InputMismatch, match="takes exactly 2 rows at once, and got 3"):
        load("fixed_batch_two").predict(column(0, 1, 2))


def test_a_model_that_fails_on_more_rows_still_predicts_one() -> None:
    loaded = load("one_row_inside")
    with pytest.raises(InputMismatch, match="LiteRT cannot run the model on 2 rows: "):
        loaded.predict(column(0, 1))
    assert loaded.predict(column(1)).tolist() == [[2.5]]


@pytest.mark.parametrize("shape", [(2, 2), (2, 0), (2, 1, 1), (2,)])
def test_rows_of_another_width_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputMismatch, match=r"the model takes \[1\] numbers a row, and its columns give"):
        load("half_plus_two").predict(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_another_dtype_is_rejected(dtype: str) -> None:
    with pytest.raises(InputMismatch, match=f"the model takes float32, and its columns are {dtype}"):
        load("half_plus_two").predict(np.zeros((1, 1), dtype=dtype))


# Inputs and outputs by name


def test_the_signature_has_the_models_inputs_and_outputs() -> None:
    assert load("named").signature == Signature(
        "serving_default",
        inputs=(Tensor("a", "float32", (1,)), Tensor("b", "float32", (2,))),
        outputs=(Tensor("first", "float32", (1,)), Tensor("total", "float32", (1,))),
        batch=None,
    )


@pytest.mark.parametrize(
    ("name", "shape", "batch"),
    [
        ("half_plus_two", (1,), None),
        ("fixed_batch_one", (1,), 1),
        ("fixed_batch_two", (1,), 2),
        ("two_by_two", (2, 2), None),
        ("free_width", (None,), None),
    ],
)
def test_the_signature_has_the_variable_sizes(name: str, shape: tuple[int | None, ...], batch: int | None) -> None:
    signature = load(name).signature
    assert (signature.inputs[0].shape, signature.batch) == (shape, batch)


def test_a_file_without_signatures_has_the_names_of_its_tensors() -> None:
    signature = load("two_inputs").signature
    assert (signature.name, [tensor.name for tensor in signature.inputs]) == (None, ["a", "b"])
    got = load("two_inputs").predict({"b": column(10, 20), "a": column(1, 2)})
    assert got.tolist() == [[11.0], [22.0]]


def test_named_inputs_are_given_in_any_order() -> None:
    rows = {"b": np.array([[1, 2], [3, 4]], dtype=np.float32), "a": column(10, 20)}
    assert load("named").predict(rows, "total").tolist() == [[13.0], [27.0]]
    assert load("named").predict(rows, "first").tolist() == [[10.0], [20.0]]


def test_a_single_input_may_have_its_name_no_name_or_be_an_array() -> None:
    for inputs in (column(0), {"": column(0)}, {"x": column(0)}):
        assert load("half_plus_two").predict(inputs).tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (column(1), 'the model has the inputs "a", "b"; list the columns that each of them takes'),
        ({"": column(1)}, 'the model has the inputs "a", "b"; list the columns that each of them takes'),
        ({"a": column(1)}, 'there are no values for the input "b"'),
        ({"a": column(1), "b": column(1), "c": column(1)}, 'the model has no input "c", but "a", "b"'),
        ({"a": column(1), "b": column(1)}, r'the input "b" takes \[2\] numbers a row, and its columns give \[1\]'),
        (
            {"a": column(1, 2), "b": np.ones((1, 2), dtype=np.float32)},
            'every input takes the same number of rows, and there are 2 for "a", 1 for "b"',
        ),
    ],
)
def test_inputs_that_do_not_fit_are_rejected(inputs: Any, expected: str) -> None:
    with pytest.raises(InputMismatch, match=expected):
        load("named").predict(inputs, "total")


@pytest.mark.parametrize(
    ("name", "signature", "output", "inputs"),
    [
        ("half_plus_two", None, None, {"": column(1)}),
        ("half_plus_two", None, None, {"x": column(1, 2)}),
        ("named", None, "total", {"b": np.array([[1, 2]], dtype=np.float32), "a": column(10)}),
        ("signatures", "double", None, {"": column(-4)}),
        ("fixed_batch_one", None, None, {"": column(1, 2, 3)}),
        ("int8", None, None, {"": column(1)}),
        ("text", None, "label", {"": column(1)}),
        ("indexed", None, None, {"i": column(1), "x": column(2)}),
    ],
)
def test_a_prepared_model_predicts_as_an_unprepared_one(
    name: str, signature: str | None, output: str | None, inputs: dict[str, Any]
) -> None:
    loaded = load(name, signature)
    ask = loaded.prepare({key: np.zeros_like(value) for key, value in inputs.items()}, output)
    got, expected = ask([*inputs.values()]), loaded.predict(inputs, output)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_prepared_inputs_that_do_not_fit_are_rejected_at_the_call() -> None:
    inputs = {"a": column(1), "b": column(1)}
    ask = load("named").prepare(inputs, "total")
    with pytest.raises(InputMismatch, match=r'the input "b" takes \[2\] numbers a row'):
        ask([*inputs.values()])


def test_one_of_several_outputs_must_be_chosen() -> None:
    rows = {"a": column(1), "b": np.ones((1, 2), dtype=np.float32)}
    with pytest.raises(InputMismatch, match='the model has the outputs "first", "total"; choose one of them'):
        load("named").predict(rows)
    with pytest.raises(InputMismatch, match='no output "totl", but "first", "total", did'):
        load("named").predict(rows, "totl")


def test_every_signature_of_a_file_can_be_run() -> None:
    assert load("signatures", "half").predict(column(0, 1, -4)).tolist() == [[2.0], [2.5], [0.0]]
    assert load("signatures", "double").predict(column(0, 1, -4)).tolist() == [[0.0], [2.0], [-8.0]]


def test_two_signatures_of_a_file_do_not_disturb_each_other() -> None:
    half, double = load("signatures", "half"), load("signatures", "double")
    for rows in (1, 3, 2):
        values = np.arange(rows, dtype=np.float32)[:, None]
        assert half.predict(values).tolist() == (values / 2 + 2).tolist()
        assert double.predict(values).tolist() == (values * 2).tolist()


@pytest.mark.parametrize(
    ("name", "signature", "expected"),
    [
        ("signatures", None, 'the model has the signatures "double", "half"; choose one of them'),
        ("signatures", "hafl", 'the model has no signature "hafl", but "double", "half", did you mean "half"?'),
        ("two_inputs", "half", 'the model lists no signatures, so it has none named "half"; leave the name out'),
    ],
)
def test_a_missing_signature_is_rejected(name: str, signature: str | None, expected: str) -> None:
    with pytest.raises(ModelRefused, match=expected):
        load(name, signature)


def test_a_model_without_rows_is_rejected() -> None:
    with pytest.raises(ModelRefused, match='the input "x" is a single number; every input needs a first dimension'):
        load("one_number")


@pytest.mark.parametrize("name", ["half_plus_two", "fixed_batch_one", "int8"])
def test_empty_inputs_are_rejected(name: str) -> None:
    with pytest.raises(InputMismatch, match="there are no rows"):
        load(name).predict(np.zeros((0, 1), dtype=np.float32))


def test_a_variable_size_may_change_from_call_to_call() -> None:
    loaded = load("free_width")
    for width in (1, 4, 2):
        assert loaded.predict(np.ones((3, width), dtype=np.float32)).tolist() == [[width]] * 3


def test_integers_widen_only_to_longer_integers() -> None:
    loaded = load("long_plus_one")
    for dtype in (np.int64, np.int32, np.int8):
        assert loaded.predict(np.array([[-1], [41]], dtype=dtype)).tolist() == [[0], [42]]
    for dtype in (np.uint64, np.bool_):
        with pytest.raises(InputMismatch, match="the model takes int64, and its columns are"):
            loaded.predict(np.ones((1, 1), dtype=dtype))


def test_text_is_text() -> None:
    got = load("text").predict(column(1, -1, 0), "label")
    assert (got.dtype.kind, got.tolist()) == ("U", ["yés", "no", "no"])
    assert load("text").predict(column(1, -1), "score").tolist() == [1.0, -1.0]


# Quantized


STEPS = np.arange(-128, 128, dtype=np.float32)[:, None] / 8
"""Every number that the quantized models distinguish."""


@pytest.mark.parametrize("name", ["int8", "uint8", "int8_inside"])
def test_a_quantized_model_takes_and_returns_floats(name: str) -> None:
    # x in steps of 1/8 and y = x / 2 + 2 in steps of 1/16 are whole numbers inside, so nothing is lost.
    got = load(name).predict(STEPS)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, STEPS / 2 + 2)


@pytest.mark.parametrize(("name", "zero_point"), [("int8", 0), ("uint8", 128)])
def test_the_signature_has_the_quantization(name: str, zero_point: int) -> None:
    (tensor,) = load(name).signature.inputs
    assert (tensor.dtype, tensor.quantization) == (name, Quantization(1 / 8, zero_point))


@pytest.mark.parametrize(("name", "zero_point"), [("int8", 0), ("uint8", 128)])
def test_integers_for_a_quantized_input_pass_unchanged(name: str, zero_point: int) -> None:
    numbers = (STEPS * 8 + zero_point).astype(name)
    np.testing.assert_array_equal(load(name).predict(numbers), STEPS / 2 + 2)


@pytest.mark.parametrize("name", ["int8", "uint8"])
def test_floats_are_quantized_like_by_a_model_that_quantizes_its_own_inputs(name: str) -> None:
    # Halves between two steps, and numbers beyond both ends, are where roundings differ.
    halves = np.arange(-300, 300, dtype=np.float32)[:, None] / 16
    anything = np.random.default_rng(5).uniform(-20, 20, (1000, 1)).astype(np.float32)
    values = np.concatenate([halves, anything])
    np.testing.assert_array_equal(load(name).predict(values), load("int8_inside").predict(values))


def test_values_that_are_not_finite_are_not_quantized() -> None:
    with pytest.raises(InputMismatch, match="a value that is not finite cannot be quantized"):
        load("int8").predict(column(1, math.nan))


def test_floats_for_bytes_without_quantization_are_never_cast() -> None:
    loaded = load("bytes_halved")
    assert loaded.predict(np.array([[0], [255]], dtype=np.uint8)).tolist() == [[0.0], [127.5]]
    with pytest.raises(
        InputMismatch, match="takes uint8, and its columns are float32, which it has no quantization for"
    ):
        loaded.predict(column(1))


# Files


def test_an_unknown_runtime_is_rejected() -> None:
    with pytest.raises(ModelRefused, match='no runtime named "onnx"; this version has "litert", "tensorflow"'):
        load_model("onnx", model("sigmoid"))


def test_a_model_outlives_the_bytes_it_was_loaded_from() -> None:
    loaded = load_model("litert", bytes(bytearray(model("half_plus_two"))))
    gc.collect()
    rubbish = [b"\xff" * 1036 for _ in range(10_000)]
    assert loaded.predict(column(4)).tolist() == [[4.0]]
    del rubbish


def test_float_columns_with_whole_numbers_are_cast_for_an_integer_input() -> None:
    assert load("long_plus_one").predict(column(0, 3, 2**24 - 1)).tolist() == [[1], [4], [2**24]]


@pytest.mark.parametrize("value", [0.5, -0.1, 2.0**24, np.nan, np.inf])
def test_fractions_are_never_cast_to_integers(value: float) -> None:
    with pytest.raises(InputMismatch, match="takes int64, and row 1 of its columns holds no whole number"):
        load("long_plus_one").predict(column(1, value))


def test_no_truncated_or_foreign_file_loads_or_crashes_the_process() -> None:
    # In a process of its own: a runtime that crashes on a file must fail this test, not end the whole run.
    code = """
import sys
from stepensemble.core.errors import ModelRefused
from stepensemble.runtimes import load_model
whole = open(sys.argv[1], "rb").read()
broken = [whole[:size] for size in range(0, len(whole), 50)]
broken += [b"not a model", bytes(500), whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)]
for artifact in broken:
    try:
        load_model("litert", artifact)
    except ModelRefused as error:
        assert str(error).startswith("LiteRT cannot load the artifact: ")
    else:
        raise AssertionError(f"{len(artifact)} bytes were loaded")
"""
    subprocess.run([sys.executable, "-c", code, str(MODELS / "softmax.tflite")], check=True, timeout=60)


def test_every_model_is_smaller_than_two_kilobytes() -> None:
    assert max(path.stat().st_size for path in MODELS.glob("*.tflite")) < 2048
