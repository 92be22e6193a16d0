from __future__ import annotations

import gc
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from builders import MODELS, model
from stepensemble.core.errors import InputMismatch, ModelRefused
from stepensemble.runtimes import Model, load_model


def load(name: str) -> Model:
    return load_model("litert", model(name))


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


def test_the_number_of_rows_may_change_from_call_to_call() -> None:
    loaded = load("half_plus_two")
    for rows in (1, 5, 2, 1000, 1):
        assert loaded.predict(np.zeros((rows, 1), dtype=np.float32)).tolist() == [[2.0]] * rows


def test_an_answer_does_not_change_when_another_is_given() -> None:
    loaded = load("half_plus_two")
    first = loaded.predict(column(2))
    loaded.predict(column(100))
    assert first.tolist() == [[3.0]]


def test_rows_are_answered_together_as_each_alone() -> None:
    loaded, values = load("sigmoid"), np.random.default_rng(3).normal(0, 3, (100, 1)).astype(np.float32)
    alone = np.concatenate([loaded.predict(values[row : row + 1]) for row in range(100)])
    np.testing.assert_allclose(loaded.predict(values), alone, rtol=1e-6)


def test_a_model_of_one_row_at_a_time_is_asked_row_by_row() -> None:
    assert load("fixed_batch_one").predict(column(0, 1, 2)).tolist() == [[2.0], [2.5], [3.0]]


def test_a_model_of_two_rows_takes_two() -> None:
    assert load("fixed_batch_two").predict(column(0, 1)).tolist() == [[2.0], [2.5]]
    with pytest.raises(InputMismatch, match="takes exactly 2 rows at once, and 3 came"):
        load("fixed_batch_two").predict(column(0, 1, 2))


def test_a_model_that_fails_at_more_rows_says_so_and_goes_on_with_one() -> None:
    loaded = load("one_row_inside")
    with pytest.raises(InputMismatch, match="LiteRT cannot run the model on 2 rows: "):
        loaded.predict(column(0, 1))
    assert loaded.predict(column(1)).tolist() == [[2.5]]


@pytest.mark.parametrize("shape", [(2, 2), (2, 0), (2, 1, 1), (2,)])
def test_rows_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputMismatch, match=r"the model takes \[1\] numbers a row, and its columns give"):
        load("half_plus_two").predict(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("dtype", ["float64", "int32", "uint8"])
def test_another_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(InputMismatch, match=f"the model takes float32, and its columns are {dtype}"):
        load("half_plus_two").predict(np.zeros((1, 1), dtype=dtype))


def test_a_model_of_two_inputs_is_refused() -> None:
    with pytest.raises(ModelRefused, match="the model has 2 inputs and 1 outputs, not one of each"):
        load("two_inputs")


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(ModelRefused, match='no runtime named "onnx"; this version has "litert"'):
        load_model("onnx", model("sigmoid"))


def test_a_model_outlives_the_bytes_it_was_loaded_from() -> None:
    loaded = load_model("litert", bytes(bytearray(model("half_plus_two"))))
    gc.collect()
    rubbish = [b"\xff" * 1036 for _ in range(10_000)]
    assert loaded.predict(column(4)).tolist() == [[4.0]]
    del rubbish


def test_no_truncated_or_foreign_file_loads_or_ends_the_process() -> None:
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
