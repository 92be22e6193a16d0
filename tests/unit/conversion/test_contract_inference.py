from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from builders import BINARY, REGRESSION, THREE
from stepensemble.conversion.contract_inference import (
    GoldenColumns,
    choose_inputs,
    choose_output,
    describe_inferred,
    infer_output,
)
from stepensemble.core.aggregation.canonical import convert_output
from stepensemble.core.errors import AdditionRefused, InputMismatch, InvalidOutput
from stepensemble.core.schema.outputs import Label, Probabilities, Probability, Value
from stepensemble.core.schema.task import MulticlassTask, Task
from stepensemble.runtimes import Signature, Tensor

ROWS = 16


def signature(**inputs: tuple[int | None, ...] | None) -> Signature:
    """A model that takes floats of these shapes."""
    tensors = tuple(Tensor(name, "float32", shape) for name, shape in inputs.items())
    return Signature(None, tensors, (Tensor("y", "float32", (1,)),), None)


def columns(*names: str, **tensors: tuple[int, ...]) -> dict[str, Any]:
    """Two rows of zeros by these names; of tensors, with these shapes."""
    numbers = {name: np.zeros(2, dtype=np.float32) for name in names}
    return numbers | {name: np.zeros((2, *shape), dtype=np.float32) for name, shape in tensors.items()}


@pytest.mark.parametrize(
    ("model", "given_", "expected"),
    [
        (signature(input_1=(3,)), columns("a", "b", "c"), {"": ("a", "b", "c")}),
        (signature(input_1=(None,)), columns("a", "b"), {"": ("a", "b")}),
        (signature(input_1=None), columns("a", "b"), {"": ("a", "b")}),
        (signature(input_1=(4, 4)), columns(image=(4, 4)), {"": ("image",)}),
        (signature(input_1=(None, None)), columns(image=(4, 4)), {"": ("image",)}),
        (signature(b=(1,)), columns("a", "b", "c"), {"": ("b",)}),
        (signature(image=(4, 4)), columns("a", image=(4, 4)), {"": ("image",)}),
        (signature(input_1=()), columns("a"), {"": ("a",)}),
        (signature(b=(), a=()), columns("a", "b", "c"), {"b": ("b",), "a": ("a",)}),
        (signature(b=(1,), a=(1,)), columns("a", "b", "c"), {"b": ("b",), "a": ("a",)}),
        (signature(port=(2,), a=(1,)), columns("a", "port=C", "port=S"), {"port": ("port=C", "port=S"), "a": ("a",)}),
        (signature(image=(4, 4), a=(1,)), columns("a", image=(4, 4)), {"image": ("image",), "a": ("a",)}),
    ],
)
def test_an_input_takes_the_columns_that_fit_or_have_its_name(model: Signature, given_: Any, expected: Any) -> None:
    assert choose_inputs(model, given_) == expected


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (signature(input_1=(3,)), '3 numbers a row as "input_1", and there are 2 columns, "a", "b".*: --columns NAME'),
        (signature(input_1=()), 'the model takes one number a row as "input_1"'),
        (signature(a=(5,)), 'the model takes 5 numbers a row as "a"'),
        (signature(input_1=(4, None)), "the model takes 4 x any numbers a row"),
        (
            signature(a=(1,), z=(1,)),
            'takes 1 number a row as "a" and 1 number a row as "z".*: --input a=NAME,… --input z=NAME,…',
        ),
    ],
)
def test_inputs_that_cannot_be_inferred_must_be_declared(model: Signature, complaint: str) -> None:
    with pytest.raises(InputMismatch, match=complaint):
        choose_inputs(model, columns("a", "b"))


def test_a_tensor_is_never_mixed_with_other_columns() -> None:
    with pytest.raises(InputMismatch, match="4 x 4 numbers a row"):
        choose_inputs(signature(input_1=(4, 4)), columns("a", image=(4, 4)))


def test_an_image_in_another_layout_is_rejected_with_its_layout() -> None:
    with pytest.raises(InputMismatch, match=r'takes 28 x 28 .* column "image" has 28 x 28 x 1; .*"layout".*"HW"'):
        choose_inputs(signature(input_1=(28, 28)), columns(image=(28, 28, 1)))


@pytest.mark.parametrize(
    ("model", "values", "complaint"),
    [
        (signature(x=(2,)), {"": ("a",)}, 'takes 2 numbers a row as "x", and "x" gets "a"; .*--columns'),
        (signature(x=(1,)), {"y": ("a",)}, 'the model has no input "y": .* as "x"'),
        (signature(x=(1,), y=(1,)), {"": ("a",)}, "the model has several inputs: .*--input x=NAME"),
        (signature(x=(1,), y=(1,)), {"x": ("a",)}, '"y" gets no columns'),
    ],
)
def test_declared_inputs_must_fit(model: Signature, values: Any, complaint: str) -> None:
    with pytest.raises(InputMismatch, match=complaint):
        choose_inputs(model, columns("a", "b"), values)


def test_rows_are_bound_as_declared_or_as_inferred() -> None:
    numbers = {"a": np.array([1, 2], np.float32), "b": np.array([3, 4], np.float32)}
    assert GoldenColumns(numbers).bind(signature(x=(2,)))[""].tolist() == [[1, 3], [2, 4]]
    assert GoldenColumns(numbers, {"": ("b", "a")}).bind(signature(x=(2,)))[""].tolist() == [[3, 1], [4, 2]]
    assert GoldenColumns(numbers, {"x": ("b",)}).bind(signature(x=(1,)))["x"].tolist() == [[3], [4]]


def spread(low: float, high: float, width: int = 1) -> Any:
    return np.linspace(low, high, ROWS * width, dtype=np.float32).reshape(ROWS, width)


def shares(width: int) -> Any:
    numbers = spread(1, 9, width)
    return numbers / numbers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("task", "values", "expected"),
    [
        (BINARY, spread(0.1, 0.9), Probability()),
        (BINARY, spread(0, 1)[:, 0], Probability()),
        (BINARY, shares(2), Probabilities()),
        (THREE, shares(3), Probabilities()),
        (THREE, np.array(["red", "blue"] * 8), Label()),
        (BINARY, np.array([[b"no"], [b"yes"]]), Label()),
        (REGRESSION, spread(-5, 500), Value()),
        (REGRESSION, np.arange(4), Value()),
    ],
)
def test_an_unambiguous_output_is_inferred(task: Task, values: Any, expected: Any) -> None:
    assert infer_output(task, values) == expected


@pytest.mark.parametrize(
    ("task", "values", "complaint"),
    [
        (BINARY, spread(-4, 3), r'from -4 to 3, which is not a probability; give "logit" if it is the log-odds'),
        (BINARY, spread(0, 1.001), r"from 0 to 1.001, which is not a probability"),
        (BINARY, np.array([0.0, 1.0] * 8), 'from 0 to 1, and never between; give "label" if it is the index'),
        (BINARY, np.array([0, 1] * 8), 'and never between; give "label"'),
        (BINARY, spread(0.1, 0.9)[:7], 'on only 7 golden rows; give "probability", "logit" or "label"'),
        (
            BINARY,
            spread(-1, 1, 2),
            r'with sums from .*, which are not probabilities; give "logits" if the model has no softmax',
        ),
        (BINARY, shares(3), 'numbers, 3 a row, and the task has the classes "no", "yes"; use a model'),
        (THREE, np.arange(ROWS) % 3, 'more than two classes; give "label" if it is the index of a class'),
        (THREE, shares(3) * 1.01, 'sums from 1.01 to 1.01, .* or "probabilities" with a "tolerance"'),
        (THREE, np.array(["red", "pink"] * 8), 'text, 1 a row, and the task has the classes "red"'),
        (REGRESSION, spread(0, 1, 2), "numbers, 2 a row; use a model that gives one number"),
        (REGRESSION, np.array(["red"]), "text, 1 a row; use a model that gives one number"),
    ],
)
def test_an_ambiguous_output_must_be_declared(task: Task, values: Any, complaint: str) -> None:
    with pytest.raises(AdditionRefused, match=complaint) as raised:
        infer_output(task, values)
    assert [problem.path for problem in raised.value.problems] == ["--output"]


def test_an_output_that_is_not_finite_is_rejected() -> None:
    with pytest.raises(InvalidOutput, match="row 1 is not finite"):
        infer_output(BINARY, np.array([0.5, np.nan]))


@given(
    st.integers(2, 5).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(-2, 2, width=32), min_size=width, max_size=width), min_size=1, max_size=12
        )
    )
)
def test_an_inferred_output_is_always_valid(rows: list[list[float]]) -> None:
    values = np.array(rows, dtype=np.float32)
    for task in (BINARY, REGRESSION, MulticlassTask(classes=tuple("abcde"[: values.shape[1]]))):
        for output in (values, values[:, :1]):
            try:
                inferred = infer_output(task, output)
            except AdditionRefused:
                continue
            convert_output(output[:, 0] if output.shape[1] == 1 else output, task, inferred)  # raises where it is not


def test_one_of_several_outputs_has_to_be_named() -> None:
    outputs = {"first": np.zeros(2), "total": np.ones(2)}
    assert choose_output(outputs, "total") is outputs["total"]
    assert choose_output({"y": outputs["total"]}, None) is outputs["total"]
    with pytest.raises(AdditionRefused, match=r'several outputs: "first", "total"; choose one.*"name": "first"'):
        choose_output(outputs, None)
    with pytest.raises(AdditionRefused, match='no output "totl": "first", "total", did you mean "total"'):
        choose_output(outputs, "totl")


@pytest.mark.parametrize(
    ("task", "values", "description"),
    [
        (BINARY, spread(0.1, 0.9), 'the probability of "yes": one number a row, in [0, 1] on 16 rows'),
        (THREE, shares(3), 'probabilities in the order "red", "green", "blue": numbers in [0, 1] with sums of 1'),
        (THREE, np.array(["red"] * 9), "the name of a class on 9 rows"),
        (REGRESSION, spread(0, 9), "a value: one number a row on 16 rows"),
    ],
)
def test_an_inferred_output_is_described(task: Task, values: Any, description: str) -> None:
    assert describe_inferred(task, infer_output(task, values), values).startswith(description)
