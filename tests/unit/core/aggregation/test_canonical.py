from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec import structs
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import special

from builders import BINARY, REGRESSION, THREE
from stepensemble.core.aggregation.canonical import check_output, convert_output
from stepensemble.core.errors import InvalidOutput
from stepensemble.core.schema.outputs import (
    OUTPUT_KINDS,
    TOLERANCE,
    Label,
    Logit,
    Logits,
    Output,
    Probabilities,
    Probability,
    Value,
    name_kind,
    output_width,
)
from stepensemble.core.schema.task import BinaryTask, MulticlassTask, RegressionTask, Task

Floats = NDArray[np.float64]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Let NumPy's warnings fail a test: in a function they would fill the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def read(output: Any, task: Task, contract: Output) -> Floats:
    """Check a raw output and convert it to canonical form, as the aggregation does."""
    raw = np.asarray(output)
    return convert_output(check_output(raw, len(raw)), task, contract)


@pytest.mark.parametrize(
    ("output", "rows", "shape"),
    [
        (np.zeros((2, 1), np.float32), 2, (2,)),
        (np.zeros((2, 1, 1), np.float32), 2, (2,)),
        (np.zeros(2, np.int64), 2, (2,)),
        (np.zeros((2, 3), np.float16), 2, (2, 3)),
        (np.zeros((1, 3), np.uint8), 1, (1, 3)),
        (np.array(["a", "bc"]), 2, (2,)),
        (np.array([["a", "b"]]), 1, (1, 2)),
    ],
)
def test_a_valid_output_has_one_entry_a_row(output: Any, rows: int, shape: tuple[int, ...]) -> None:
    assert check_output(output, rows).shape == shape


@pytest.mark.parametrize(
    "output",
    [
        np.array(["né", "b"]),
        np.array(["né".encode(), b"b"]),
        np.array([["né".encode()], [b"b"]], dtype=object),
        np.array(["né", b"b"], dtype=object),
        np.array([np.str_("né"), np.bytes_(b"b")], dtype=object),
    ],
    ids=["str", "bytes", "bytes objects", "both", "numpy objects"],
)
def test_text_of_any_type_becomes_str(output: Any) -> None:
    checked = check_output(output, 2)
    assert checked.dtype.kind == "U"
    assert checked.tolist() == ["né", "b"]


@pytest.mark.parametrize(
    ("output", "rows", "message"),
    [
        (np.zeros((3, 1)), 2, r"the output has shape \[3, 1\] for 2 rows"),
        (np.array(["a"]), 2, r"the output has shape \[1\] for 2 rows"),
        (np.array(1.0), 1, r"the output has shape \[\] for 1 rows"),
        (np.array([True]), 1, "the output is of type bool, neither numbers nor text"),
        (np.array([1j]), 1, "the output is of type complex128, neither numbers nor text"),
        (np.array([None]), 1, "the output is of type object, neither numbers nor text"),
        (np.array(["a", 1], dtype=object), 2, "the output is of type object, neither numbers nor text"),
        (np.array([b"\xff"]), 1, "the output is text, and not in UTF-8"),
        (np.array([1, np.nan, np.inf]), 3, r"the output of row 1 is not finite \(2 of 3 rows\)"),
        (np.array([[1, 2], [-np.inf, 2]]), 2, r"the output of row 1 is not finite \(1 of 2 rows\)"),
    ],
)
def test_an_output_without_a_finite_number_or_text_a_row_is_rejected(output: Any, rows: int, message: str) -> None:
    with pytest.raises(InvalidOutput, match=message):
        check_output(output, rows)


@pytest.mark.parametrize(
    ("task", "contract", "output", "expected"),
    [
        (REGRESSION, Value(), [2.5, -1], [2.5, -1]),
        (REGRESSION, Value(scale=2, offset=-1), [2.5, -1], [4, -3]),
        (REGRESSION, Value(offset=0.5), np.array([1, 2], np.int8), [1.5, 2.5]),
        (BINARY, Probability(), [0.25, 1.0], [[0.75, 0.25], [0, 1]]),
        (BINARY, Probability(of="yes"), [0.25, 1.0], [[0.75, 0.25], [0, 1]]),
        (BINARY, Probability(of="no"), [0.25, 1.0], [[0.25, 0.75], [1, 0]]),
        (BINARY, Probabilities(), [[0.25, 0.75]], [[0.25, 0.75]]),
        (BINARY, Probabilities(classes=("yes", "no")), [[0.25, 0.75]], [[0.75, 0.25]]),
        (THREE, Probabilities(), [[0.25, 0.25, 0.5]], [[0.25, 0.25, 0.5]]),
        (THREE, Probabilities(classes=("blue", "red", "green")), [[0.5, 0.375, 0.125]], [[0.375, 0.125, 0.5]]),
        (BINARY, Logit(), [0.0], [[0.5, 0.5]]),
        (BINARY, Logits(), [[3.0, 3.0]], [[0.5, 0.5]]),
        (THREE, Logits(), [[-7.0, -7.0, -7e3]], [[0.5, 0.5, 0]]),
        (BINARY, Label(), [0, 1], [[1, 0], [0, 1]]),
        (BINARY, Label(classes=("yes", "no")), [0, 1], [[0, 1], [1, 0]]),
        (THREE, Label(), [2.0, 0.0], [[0, 0, 1], [1, 0, 0]]),
        (THREE, Label(), np.array([[2], [0]], np.uint8), [[0, 0, 1], [1, 0, 0]]),
        (THREE, Label(classes=("blue", "red", "green")), [0, 1, 2], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
        (THREE, Label(), np.array(["green", "red"]), [[0, 1, 0], [1, 0, 0]]),
        (THREE, Label(), np.array([b"green", b"red"], dtype=object), [[0, 1, 0], [1, 0, 0]]),
        (THREE, Label(classes=("blue", "red", "green")), np.array(["green"]), [[0, 1, 0]]),
    ],
)
def test_every_kind_becomes_values_or_class_probabilities(
    task: Task, contract: Output, output: Any, expected: Any
) -> None:
    got = read(output, task, contract)
    assert got.dtype == np.float64
    assert got.tolist() == expected


LOGITS = np.array([[2.0, -1.0, 0.5], [0.1, 0.1, 3.0]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_logits_go_through_the_softmax_at_their_temperature(temperature: float) -> None:
    expected = special.softmax(LOGITS / temperature, axis=1)
    assert_allclose(read(LOGITS, THREE, Logits(temperature=temperature)), expected, rtol=1e-13)
    order = Logits(classes=("blue", "red", "green"), temperature=temperature)
    assert_allclose(read(LOGITS, THREE, order), expected[:, [1, 2, 0]], rtol=1e-13)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_logit_goes_through_the_sigmoid_at_its_temperature(temperature: float) -> None:
    second = special.expit(LOGITS[:, 0] / temperature)
    assert_allclose(read(LOGITS[:, 0], BINARY, Logit(temperature=temperature))[:, 1], second, rtol=1e-14)
    of_first = Logit(of="no", temperature=temperature)
    assert_allclose(read(LOGITS[:, 0], BINARY, of_first)[:, 0], second, rtol=1e-14)
    # Of two classes a logit is the difference of their logits.
    both = read(np.stack([LOGITS[:, 1], LOGITS[:, 0]], axis=1), BINARY, Logits(temperature=temperature))
    assert_allclose(both[:, 1], special.expit((LOGITS[:, 0] - LOGITS[:, 1]) / temperature), rtol=1e-13)


def test_a_large_logit_of_the_first_class_leaves_the_second_a_small_probability() -> None:
    # 1 - expit(40) is 0 in floats, expit(-40) is not: no veto where the model gave none.
    assert_allclose(read([40.0], BINARY, Logit(of="no"))[:, 1], special.expit(-40), rtol=1e-14)


@pytest.mark.parametrize("temperature", [0.5, 2.5, 40.0])
def test_a_temperature_on_probabilities_is_one_on_the_logits_behind_them(temperature: float) -> None:
    expected = special.softmax(LOGITS / temperature, axis=1)
    of_all = read(special.softmax(LOGITS, axis=1), THREE, Probabilities(temperature=temperature))
    assert_allclose(of_all, expected, rtol=1e-12)
    second = special.expit(LOGITS[:, 0] / temperature)
    of_second = read(special.expit(LOGITS[:, 0]), BINARY, Probability(temperature=temperature))
    assert_allclose(of_second[:, 1], second, rtol=1e-12)
    of_first = read(special.expit(LOGITS[:, 0]), BINARY, Probability(of="no", temperature=temperature))
    assert_allclose(of_first[:, 0], second, rtol=1e-12)


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1.0, 3.0, 1e300])
def test_a_probability_of_zero_stays_zero_at_any_temperature(temperature: float) -> None:
    certain = read([0.0, 1.0], BINARY, Probability(temperature=temperature))
    assert certain.tolist() == [[1, 0], [0, 1]]
    # The other two are equal.
    halves = read([[0.5, 0.0, 0.5]], THREE, Probabilities(temperature=temperature))
    assert_allclose(halves, [[0.5, 0, 0.5]], rtol=1e-14)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 0.5, 1.0, 2.0])
def test_no_logit_is_too_large(temperature: float) -> None:
    assert read([1e4, -1e4, 1.7e308], BINARY, Logit(temperature=temperature)).tolist() == [[0, 1], [1, 0], [0, 1]]
    of_all = Logits(temperature=temperature)
    assert read([[1e4, -1e4, 0], [-1.7e308, 1.7e308, 0]], THREE, of_all).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert read([[1.7e308, -1e4, 1.7e308]], THREE, of_all).tolist() == [[0.5, 0, 0.5]]


def test_a_small_temperature_leaves_the_most_probable_class() -> None:
    assert read([[0.3, 0.4, 0.3]], THREE, Probabilities(temperature=5e-324)).tolist() == [[0, 1, 0]]
    assert read([0.4], BINARY, Probability(temperature=1e-300)).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("task", "contract", "output", "message"),
    [
        (BINARY, Probability(), [[0.1, 0.9]], 'the output has 2 numbers a row, and "probability" means 1'),
        (BINARY, Logit(), [[0.1, 0.9]], 'the output has 2 numbers a row, and "logit" means 1'),
        (BINARY, Probabilities(), [0.5], 'the output has 1 numbers a row, and "probabilities" means 2'),
        (THREE, Probabilities(), [0.5], 'the output has 1 numbers a row, and "probabilities" means 3'),
        (THREE, Logits(), [[1, 2]], 'the output has 2 numbers a row, and "logits" means 3'),
        (THREE, Label(), [["red", "red"]], 'the output has 2 numbers a row, and "label" means 1'),
        (REGRESSION, Value(), [[1, 2]], 'the output has 2 numbers a row, and "value" means 1'),
        (REGRESSION, Value(), ["1"], 'the output is text, and "value" means numbers'),
        (BINARY, Probability(), ["yes"], 'the output is text, and "probability" means numbers'),
        (THREE, Logits(), [["1", "2", "3"]], 'the output is text, and "logits" means numbers'),
        (BINARY, Probability(), [0.5, 1.1], "the output of row 1, 1.1, is outside [0, 1] by more than "
            "0.001 (1 of 2 rows)"),
        (BINARY, Probability(), [-0.1], "the output of row 0, -0.1, is outside [0, 1]"),
        (THREE, Probabilities(), [[0.5, 0.5, 0.5]], "the output of row 0, 1.5, sums to something other than 1, by more "
            "than 0.001 (1 of 1 rows)"),
        (THREE, Probabilities(), [[0.25, 0.25, 0.5], [-0.5, 0.5, 1.0], [2, 0, 0]], "the output of row 1, [-0.5  0.5  "
            "1. ], is outside [0, 1] by more than 0.001 (2 of 3 rows)"),
        (THREE, Label(), [1, 3], "the output of row 1, 3, is not one of the labels 0 … 2 (1 of 2 rows)"),
        (THREE, Label(), [3.0], "the output of row 0, 3., is not one of the labels 0 … 2"),
        (THREE, Label(), [1e300], "is not one of the labels"),
        (THREE, Label(), [-1], "is not one of the labels"),
        (THREE, Label(), [0.5], "is not one of the labels"),
        (BINARY, Label(), [2], "is not one of the labels 0 … 1"),
        (THREE, Label(), ["red", "Red"], 'the output of row 1, "Red", is not one of the labels "red", "green", "blue" '
            "(1 of 2 rows)"),
        (THREE, Label(), [b"0"], 'the output of row 0, "0", is not one of the labels'),
        (REGRESSION, Value(scale=10), [1, 1.7e308], "the output of row 1, 1.7e+308, is beyond 1e+90 once scaled (1 "),
        (REGRESSION, Value(scale=-10, offset=1e308), [1.7e308], "is beyond 1e+90 once scaled (1 of 1 rows)"),
    ],
)  # fmt: skip
def test_an_output_of_another_kind_is_rejected(task: Task, contract: Output, output: Any, message: str) -> None:
    with pytest.raises(InvalidOutput) as refused:
        read(output, task, contract)
    assert message in str(refused.value)


@pytest.mark.parametrize(("task", "contract"), [(REGRESSION, Label()), (BINARY, Value())])
def test_a_declared_output_for_another_task_is_rejected(task: Task, contract: Output) -> None:
    with pytest.raises(InvalidOutput, match="is not an output of a"):
        read([1.0], task, contract)


@pytest.mark.parametrize("tolerance", [TOLERANCE, 0.05])
@pytest.mark.parametrize(("side", "clipped"), [(1, 1.0), (-1, 0.0)])
def test_errors_of_low_precision_are_clipped(tolerance: float, side: int, clipped: float) -> None:
    contract = Probability(tolerance=tolerance)
    assert read([max(side, 0) + side * tolerance / 2], BINARY, contract)[0, 1] == clipped
    with pytest.raises(InvalidOutput):
        read([max(side, 0) + side * tolerance * 1.01], BINARY, contract)


@pytest.mark.parametrize("tolerance", [TOLERANCE, 0.05])
def test_sums_may_be_off_by_the_tolerance_and_are_then_1(tolerance: float) -> None:
    contract = Probabilities(tolerance=tolerance)
    off = np.array([[0.2, 0.3, 0.5 + tolerance / 2]])
    assert_allclose(read(off, THREE, contract), off / (1 + tolerance / 2), rtol=1e-15)
    with pytest.raises(InvalidOutput):
        read(np.add(off, [0, 0, tolerance]), THREE, contract)


def test_a_quantized_model_can_declare_its_own_tolerance() -> None:
    quantized = np.round(np.array([[1, 1, 1]]) / 3 * 16) / 16  # in steps of 1/16 a third is 5/16: 15/16 in all
    with pytest.raises(InvalidOutput, match="sums to something other than 1"):
        read(quantized, THREE, Probabilities())
    assert_allclose(read(quantized, THREE, Probabilities(tolerance=0.1)), [[1 / 3] * 3], rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_precision_is_read_in_double(dtype: Any) -> None:
    raw = np.array([[0.2, 0.3, 0.5]], dtype)
    assert_allclose(
        read(raw, THREE, Probabilities()), raw.astype(np.float64) / raw.astype(np.float64).sum(), rtol=1e-15
    )
    assert read(raw[:, 0], BINARY, Probability())[0, 1] == float(dtype(0.2))


@pytest.mark.parametrize(
    ("task", "contract", "width"),
    [
        (REGRESSION, Value(), 1),
        (BINARY, Probability(), 1),
        (BINARY, Logit(), 1),
        (BINARY, Label(), 1),
        (BINARY, Probabilities(), 2),
        (THREE, Probabilities(), 3),
        (THREE, Logits(), 3),
        (THREE, Label(), 1),
    ],
)
def test_the_width_of_an_output_is_known_before_it_is_computed(task: Task, contract: Output, width: int) -> None:
    assert output_width(task, contract) == width


def test_every_kind_is_accepted_by_some_task() -> None:
    kinds = {name_kind(kind()) for kind in (Probability, Probabilities, Logit, Logits, Label, Value)}
    assert set().union(*OUTPUT_KINDS.values()) == kinds
    assert set(OUTPUT_KINDS) == {BinaryTask, MulticlassTask, RegressionTask}


TEMPERATURES = st.sampled_from([1.0]) | st.floats(0.01, 100)


@st.composite
def classifications(draw: st.DrawFn) -> tuple[Task, Output, Floats]:
    """Draw a task of classes, a declared output for it with a temperature and an order of classes, and raw outputs."""
    names = tuple(f"c{index}" for index in range(draw(st.integers(2, 9))))
    task = BinaryTask(names) if len(names) == 2 else MulticlassTask(names)
    rows, temperature = draw(st.integers(1, 6)), draw(TEMPERATURES)
    order = tuple(draw(st.permutations(names)))
    contracts: list[Output] = [
        Probabilities(classes=order, temperature=temperature),
        Logits(classes=order, temperature=temperature),
        Label(classes=order),
    ]
    if len(names) == 2:
        contracts += [
            Probability(of=order[0], temperature=temperature),
            Logit(of=order[0], temperature=temperature),
        ]
    contract = draw(st.sampled_from(contracts))
    shape = (rows, output_width(task, contract)) if output_width(task, contract) > 1 else (rows,)
    if isinstance(contract, Label):
        return task, contract, draw(arrays(np.float64, shape, elements=st.integers(0, len(names) - 1).map(float)))
    if isinstance(contract, Logit | Logits):
        return task, contract, draw(arrays(np.float64, shape, elements=st.floats(-1e4, 1e4)))
    # Zero, or large enough not to become zero when divided by the sum.
    numbers = draw(arrays(np.float64, shape, elements=st.just(0.0) | st.floats(1e-12, 1)))
    if isinstance(contract, Probabilities):
        assume(np.all(numbers.sum(axis=1) > 0))
        numbers = numbers / numbers.sum(axis=1, keepdims=True)
    return task, contract, numbers


@given(classifications())
def test_class_probabilities_are_probabilities(case: tuple[Task, Output, Floats]) -> None:
    task, contract, raw = case
    probabilities = read(raw, task, contract)
    assert_allclose(probabilities.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    assert np.all((probabilities >= 0) & (probabilities <= 1))


@given(classifications(), st.sampled_from("CF"))
def test_no_rows_canonical_form_depends_on_other_rows(case: tuple[Task, Output, Floats], layout: str) -> None:
    task, contract, raw = case
    together = read(np.array(raw, order=layout), task, contract)
    alone = [read(raw[index : index + 1], task, contract) for index in range(len(raw))]
    assert_array_equal(together, np.concatenate(alone))


@given(classifications(), st.randoms(use_true_random=False))
def test_outputs_and_classes_permuted_alike_give_the_same_result(case: tuple[Task, Any, Floats], random: Any) -> None:
    task, contract, raw = case
    assume(isinstance(contract, Probabilities | Logits))
    places = list(range(len(contract.classes)))
    random.shuffle(places)
    permuted = structs.replace(contract, classes=tuple(contract.classes[place] for place in places))
    assert_array_equal(read(raw[:, places], task, permuted), read(raw, task, contract))


@given(classifications(), TEMPERATURES)
def test_a_temperature_never_reverses_two_classes(case: tuple[Task, Output, Floats], temperature: float) -> None:
    task, contract, raw = case
    assume(not isinstance(contract, Label))
    one, other = read(raw, task, contract), read(raw, task, structs.replace(contract, temperature=temperature))
    # For every pair of classes: not above at one temperature and below at the other.
    above = one[:, :, None] > one[:, None, :]
    below = other[:, :, None] < other[:, None, :]
    assert not np.any(above & below)


@given(st.floats(-1e3, 1e3), st.floats(0.01, 100))
def test_the_two_classes_of_a_binary_task_mirror_each_other(logit: float, temperature: float) -> None:
    of_second = read([logit], BINARY, Logit(of="yes", temperature=temperature))
    of_first = read([-logit], BINARY, Logit(of="no", temperature=temperature))
    assert_array_equal(of_second, of_first)


@given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_a_value_is_scaled_and_then_offset(number: float, scale: float, offset: float) -> None:
    assert read([number], REGRESSION, Value(scale=scale, offset=offset)).tolist() == [number * scale + offset]
