from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from stepensemble.core.errors import InvalidPayload
from stepensemble.core.preprocessing.encoding import all_column_names, encode, normalize
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

AGES = [22.0, 38.0, 26.0, 35.0, 0.83, 54.0, 2.0, 71.0]


def column(feature: Feature, *values: Any) -> Any:
    columns = normalize([feature], [{feature.name: value} for value in values])
    assert list(columns) == [feature.name]
    return columns[feature.name]


def problems_of(features: list[Feature], rows: list[Any], **more: Any) -> list[str]:
    with pytest.raises(InvalidPayload) as refused:
        normalize(features, rows, **more)
    return [str(problem) for problem in refused.value.problems]


def test_half_a_surrogate_pair_is_refused_as_any_other_value() -> None:
    features = [NumberFeature("x", missing=0.0), CategoryFeature("c", ("a",), missing="a")]
    with pytest.raises(InvalidPayload) as refused:
        normalize(features, [{"x": "\ud800", "c": "\ud800", "\ud800": 1}])
    assert str(refused.value).encode().count(rb"\ud800") == 4
    assert len(refused.value.problems) == 3


def test_a_number_without_scaling_is_itself_in_float32() -> None:
    got = column(NumberFeature("x"), 1, -2.5, 0.1, 16_777_217)
    assert got.dtype == np.float32
    assert got.tolist() == [1.0, -2.5, float(np.float32(0.1)), 16_777_216.0]  # 2**24 + 1 has no float32


def test_standard_scaling_is_scikit_learns() -> None:
    scaler = StandardScaler().fit(np.array(AGES)[:, None])
    feature = NumberFeature("x", scaling=Standard(float(scaler.mean_[0]), float(scaler.scale_[0])))
    expected = scaler.transform(np.array(AGES)[:, None])[:, 0].astype(np.float32)
    assert_array_equal(column(feature, *AGES), expected)


def test_min_max_scaling_is_scikit_learns_and_does_not_clip() -> None:
    scaler = MinMaxScaler().fit(np.array(AGES)[:, None])
    feature = NumberFeature("x", scaling=MinMax(0.83, 71.0))
    requested = [*AGES, -10.0, 100.0]
    assert_allclose(column(feature, *requested), scaler.transform(np.array(requested)[:, None])[:, 0], rtol=1e-6)


def test_log1p_scaling_is_the_logarithm_of_one_more() -> None:
    feature = NumberFeature("x", min=0, scaling=Log1p())
    assert_allclose(column(feature, *AGES), [math.log(1 + age) for age in AGES], rtol=1e-6)


def test_a_missing_number_is_filled_before_scaling() -> None:
    feature = NumberFeature("x", missing=30.0, scaling=Standard(20.0, 5.0))
    rows: list[Mapping[str, Any]] = [{"x": None}, {}, {"x": 30.0}]
    assert normalize([feature], rows)["x"].tolist() == [2.0, 2.0, 2.0]  # (30 - 20) / 5


@pytest.mark.parametrize("text", ["7.25", " 7 ", "+3", "-.5", "1e3", "2.", "1E-2", "007"])
def test_a_numeral_is_the_number_it_writes(text: str) -> None:
    assert column(NumberFeature("x"), text).tolist() == [float(np.float32(float(text)))]


@pytest.mark.parametrize(
    "text", ["", " ", "abc", "12 kg", "1_000", "1,5", "0x10", "nan", "inf", "-Infinity", "1e", ".", "1.2.3", "True"]
)
def test_text_that_is_not_a_number_is_refused(text: str) -> None:
    expected = f'$.instances[0].x: "{text}" is not a number; write a number, without unit or words'
    assert problems_of([NumberFeature("x")], [{"x": text}]) == [expected]


@pytest.mark.parametrize(("value", "shown"), [(True, "true"), (False, "false"), ([1], "[1]"), ({}, "{}")])
@pytest.mark.parametrize("beside", [1, 2.5, None, "3"])
def test_what_is_not_a_number_is_refused_whatever_stands_beside_it(value: Any, shown: str, beside: Any) -> None:
    found = problems_of([NumberFeature("x", missing=0)], [{"x": beside}, {"x": value}])
    assert found == [f"$.instances[1].x: {shown} is not a number; write a number"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        ("1e999", '"1e999"'),
        pytest.param(10**400, "1" + "0" * 58 + "…", id="401 digits"),
        pytest.param(10**5000, "a int too long to write", id="5001 digits"),
    ],
)
@pytest.mark.parametrize("beside", [1, None])
def test_a_number_that_is_not_finite_is_refused(value: Any, shown: str, beside: Any) -> None:
    found = problems_of([NumberFeature("x", missing=0)], [{"x": beside}, {"x": value}])
    remedy = "write a finite number, or null where it is missing"
    assert found == [f"$.instances[1].x: {shown} is not a finite number; {remedy}"]


@pytest.mark.parametrize(("value", "scaling"), [(1e39, None), (1e38, Standard(0, 0.01)), (1e308, Standard(0, 1e-10))])
def test_a_number_beyond_float32_is_refused_before_and_after_scaling(value: float, scaling: Standard | None) -> None:
    (found,) = problems_of([NumberFeature("x", scaling=scaling)], [{"x": value}])
    assert found.endswith("is too large for a 32-bit number; use a smaller one")


@pytest.mark.parametrize(
    ("low", "high", "value", "allowed"),
    [
        (0, 120, 121, "between 0 and 120"),
        (0, 120, -0.5, "between 0 and 120"),
        (0, None, -1, "at least 0"),
        (None, 0.125, 1, "at most 0.125"),
        (None, 1234567.5, 1234567.75, "at most 1234567.5"),
    ],
)
def test_a_number_out_of_range_is_rejected_with_the_range(
    low: float | None, high: float | None, value: float, allowed: str
) -> None:
    found = problems_of([NumberFeature("x", min=low, max=high)], [{"x": value}])
    assert found == [f"$.instances[0].x: {value} is out of range; use a number {allowed}"]


def test_the_bounds_themselves_are_in_range() -> None:
    assert column(NumberFeature("x", min=-1, max=1), -1, 1).tolist() == [-1.0, 1.0]


VOCABULARY = ("C", "Q", "S")


def test_an_index_is_scikit_learns_ordinal() -> None:
    values = ["S", "C", "Q", "S"]
    expected = OrdinalEncoder(categories=[list(VOCABULARY)]).fit_transform(np.array(values)[:, None])[:, 0]
    assert_array_equal(column(CategoryFeature("x", VOCABULARY), *values), expected)


def test_an_unknown_index_is_one_more() -> None:
    values = ["S", "?", "C", "another"]
    encoder = OrdinalEncoder(categories=[list(VOCABULARY)], handle_unknown="use_encoded_value", unknown_value=3)
    expected = encoder.fit(np.array(VOCABULARY)[:, None]).transform(np.array(values)[:, None])[:, 0]
    assert_array_equal(column(CategoryFeature("x", VOCABULARY, unknown="other"), *values), expected)


def test_one_hot_columns_are_scikit_learns() -> None:
    values = ["S", "C", "Q", "S"]
    encoder = OneHotEncoder(categories=[list(VOCABULARY)], sparse_output=False)
    expected = encoder.fit_transform(np.array(values)[:, None])
    columns = normalize([CategoryFeature("x", VOCABULARY, "one_hot")], [{"x": value} for value in values])
    assert list(columns) == ["x=C", "x=Q", "x=S"]
    assert_array_equal(np.stack(list(columns.values()), axis=1), expected)
    assert {one.dtype for one in columns.values()} == {np.dtype(np.float32)}


def test_one_hot_has_a_column_for_what_is_unknown() -> None:
    feature = CategoryFeature("x", ("a", 1), "one_hot", unknown="other", missing="a")
    columns = normalize([feature], [{"x": "zzz"}, {"x": 7}, {"x": None}, {"x": 1}])
    assert {name: one.tolist() for name, one in columns.items()} == {
        "x=a": [0, 0, 1, 0],
        "x=1": [0, 0, 0, 1],
        "x=other": [1, 1, 0, 0],
    }


def test_an_unknown_category_names_field_value_and_what_is_allowed() -> None:
    found = problems_of([CategoryFeature("Sex", ("female", "male"))], [{"Sex": "mal"}])
    expected = '"mal" is not in the vocabulary; use one of "female", "male", did you mean "male"?'
    assert found == [f"$.instances[0].Sex: {expected}"]


@pytest.mark.parametrize("value", [True, False, "1", 1.5, [1], {"a": 1}, math.nan])
@pytest.mark.parametrize("beside", [1, None])
def test_a_category_is_refused_where_it_is_of_another_type(value: Any, beside: Any) -> None:
    (found,) = problems_of([CategoryFeature("x", (0, 1, 2), missing=0)], [{"x": beside}, {"x": value}])
    assert found.startswith("$.instances[1].x: ")
    assert "is not in the vocabulary; use one of 0, 1, 2" in found


@pytest.mark.parametrize("value", [True, [1], {}, 1.5])
def test_other_takes_words_and_whole_numbers_only(value: Any) -> None:
    (found,) = problems_of([CategoryFeature("x", (0, 1), unknown="other")], [{"x": value}])
    assert "is not in the vocabulary" in found


@pytest.mark.slow
def test_suggestions_for_thousands_of_wrong_categories_stay_affordable() -> None:
    # 10,000 times difflib over 2,000 words would take minutes: a Lambda has one.
    feature = CategoryFeature("x", tuple(f"word-{number}" for number in range(2_000)))
    found = problems_of([feature], [{"x": f"work-{number}"} for number in range(10_000)])
    assert len(found) == 10_000
    assert "did you mean" in found[0]


def test_a_boolean_is_one_or_zero() -> None:
    assert column(BooleanFeature("x", missing=True), True, False, None).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(("value", "shown"), [(1, "1"), (0, "0"), ("true", '"true"'), (1.0, "1.0"), ([], "[]")])
def test_a_boolean_is_nothing_else(value: Any, shown: str) -> None:
    found = problems_of([BooleanFeature("x")], [{"x": value}])
    assert found == [f"$.instances[0].x: {shown} is neither true nor false; write true or false"]


@pytest.mark.parametrize(
    ("feature", "example"),
    [
        (NumberFeature("x"), "a number"),
        (CategoryFeature("x", ("a", 2)), 'one of "a", 2'),
        (BooleanFeature("x"), "true or false"),
    ],
)
@pytest.mark.parametrize("row", [{}, {"x": None}])
def test_a_missing_value_is_refused_unless_the_manifest_states_what_stands_for_it(
    feature: Feature, example: str, row: dict[str, Any]
) -> None:
    found = problems_of([feature], [row])
    assert found == [f'$.instances[0].x: is missing; give {example}, or set "missing" in the manifest']


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "uint8", "int8"])
def test_a_tensor_has_the_declared_shape_and_dtype(dtype: Any) -> None:
    values = [[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [7.0, 8.0, 9.0]]]
    got = column(TensorFeature("x", (2, 3), dtype), *values)
    assert got.dtype == np.dtype(dtype)
    assert_array_equal(got, np.array(values, dtype=dtype))


def test_large_whole_numbers_stay_exact_in_int64() -> None:
    assert column(TensorFeature("x", (1,), "int64"), [2**53 + 1]).tolist() == [[2**53 + 1]]


SHAPE_22 = "give nested lists of numbers of shape [2, 2]"


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (None, "float32", f"is missing; {SHAPE_22}"),
        ([[1, 2], [3]], "float32", f"has rows of different lengths; {SHAPE_22}"),
        ([1, 2], "float32", f"has shape [2]; {SHAPE_22}"),
        (5, "float32", f"has shape []; {SHAPE_22}"),
        ([[1, 2], [3, "4"]], "float32", f"holds something that is not a number; {SHAPE_22}"),
        ([[1, 2], [3, None]], "float32", f"holds something that is not a number; {SHAPE_22}"),
        ([[True, False], [True, True]], "float32", f"holds something that is not a number; {SHAPE_22}"),
        ([[1, 2], [3, True]], "float32", f"holds something that is not a number; {SHAPE_22}"),
        ([[0.5, False], [3, 1]], "uint8", f"holds something that is not a number; {SHAPE_22}"),
        ({"a": 1}, "float32", f"holds something that is not a number; {SHAPE_22}"),
        ([[1, 2], [3, math.nan]], "float32", "holds NaN or an infinity; give finite numbers"),
        ([[1, 2], [3, math.inf]], "uint8", "holds NaN or an infinity; give finite numbers"),
        ([[1, 2], [3, 1e39]], "float32", "holds a number too large for a 32-bit number; use smaller ones"),
        ([[1, 2], [3, 0.5]], "uint8", "holds a number that is not an uint8; give whole numbers between 0 and 255"),
        ([[1, 2], [3, 256]], "uint8", "holds a number that is not an uint8; give whole numbers between 0 and 255"),
        ([[1, 2], [3, -1]], "uint8", "holds a number that is not an uint8; give whole numbers between 0 and 255"),
        ([[1, 2], [3, 128]], "int8", "holds a number that is not an int8; give whole numbers between -128 and 127"),
        (
            [[1, 2], [3, 2**64 - 1]],
            "int64",
            "holds a number that is not an int64; "
            "give whole numbers between -9223372036854775808 and 9223372036854775807",
        ),
    ],
)
def test_a_tensor_that_is_not_as_declared_is_refused(value: Any, dtype: Any, expected: str) -> None:
    assert problems_of([TensorFeature("x", (2, 2), dtype)], [{"x": value}]) == [f"$.instances[0].x: {expected}"]


PASSENGER: list[Feature] = [
    CategoryFeature("Sex", ("female", "male")),
    NumberFeature("Age", min=0, max=120),
    BooleanFeature("Alone"),
]


def test_every_bad_field_of_every_row_is_named_in_row_order() -> None:
    rows = [
        {"Sex": "mail", "Age": -1, "Alone": 1},
        {"Sex": "male", "Age": 3, "Alone": False},
        [],
        {"Age": "old", "Alone": True, "Name": "Kate", "Agee": 3},
    ]
    found = [problem.split(":")[0] for problem in problems_of(PASSENGER, rows)]
    assert found == [
        "$.instances[0].Sex",
        "$.instances[0].Age",
        "$.instances[0].Alone",
        "$.instances[2]",
        "$.instances[3].Sex",
        "$.instances[3].Age",
        "$.instances[3].Name",
        "$.instances[3].Agee",
    ]


@pytest.mark.parametrize("row", [[], "male", 3, None, True])
def test_a_row_that_is_not_an_object_is_refused(row: Any) -> None:
    (found,) = problems_of(PASSENGER, [row])
    assert found.endswith(" is not an object; write an object")


def test_an_unknown_field_is_rejected_with_a_suggestion() -> None:
    found = problems_of(PASSENGER, [{"sex": "male", "Age": 3, "Alone": True}])
    assert found == [
        '$.instances[0].Sex: is missing; give one of "female", "male", or set "missing" in the manifest',
        '$.instances[0].sex: "sex" is not a feature; remove it, did you mean "Sex"?',
    ]


def test_thousands_of_fields_that_are_no_features_are_all_named_and_the_first_compared() -> None:
    row = {"x": 1} | {f"y{number}": 1 for number in range(10)}
    features = [NumberFeature("x"), *(NumberFeature(f"y_{number}", missing=0) for number in range(10))]
    found = problems_of(features, [row] * 1000)
    suggested = [problem for problem in found if "did you mean" in problem]
    assert (len(found), suggested) == (10_000, found[: len(suggested)])
    # Each is compared with eleven names, and the comparisons are 100,000 at most.
    assert len(suggested) == 9091


def test_messages_have_the_path_of_the_request() -> None:
    (found,) = problems_of([NumberFeature("x")], [{"x": "?"}], locate=lambda _: "$.features")
    assert found.startswith("$.features.x: ")


FEATURES: list[Feature] = [
    NumberFeature("plain"),
    NumberFeature("standard", missing=1.0, scaling=Standard(3.0, 0.7)),
    NumberFeature("min_max", min=-5, max=5, scaling=MinMax(-5, 5)),
    NumberFeature("log1p", min=0, scaling=Log1p()),
    CategoryFeature("index", ("a", "b", 3), missing="b"),
    CategoryFeature("one_hot", ("a", "b", "c"), "one_hot", unknown="other"),
    BooleanFeature("boolean", missing=False),
    TensorFeature("tensor", (2,)),
]
FINITE = st.floats(-1e6, 1e6)
SOUND: dict[str, st.SearchStrategy[Any]] = {
    "plain": FINITE | st.integers(-1000, 1000) | FINITE.map(repr),
    "standard": FINITE | st.none(),
    "min_max": st.floats(-5, 5),
    "log1p": st.floats(0, 1e6),
    "index": st.sampled_from(["a", "b", 3, None]),
    "one_hot": st.sampled_from(["a", "b", "c", "d", 9]),
    "boolean": st.booleans() | st.none(),
    "tensor": st.lists(st.floats(-10, 10), min_size=2, max_size=2),
}
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())
ROWS = st.lists(st.fixed_dictionaries(SOUND), min_size=1, max_size=6)
WILD_ROWS = st.lists(st.dictionaries(st.sampled_from([*SOUND, "plane", "Index"]), ANYTHING), min_size=1, max_size=6)


@given(ROWS)
def test_law_many_rows_normalize_as_each_alone(rows: list[dict[str, Any]]) -> None:
    together = normalize(FEATURES, rows)
    alone = [normalize(FEATURES, [row]) for row in rows]
    for name, whole in together.items():
        assert whole.tobytes() == np.concatenate([one[name] for one in alone]).tobytes()


@given(ROWS, st.randoms())
def test_law_the_order_of_keys_does_not_matter(rows: list[dict[str, Any]], random: Any) -> None:
    shuffled = [dict(random.sample(list(row.items()), len(row))) for row in rows]
    first, second = normalize(FEATURES, rows), normalize(FEATURES, shuffled)
    assert list(first) == list(second) == list(all_column_names(FEATURES))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@given(ROWS)
def test_law_one_hot_rows_sum_to_one(rows: list[dict[str, Any]]) -> None:
    columns = normalize(FEATURES, rows)
    total = sum(one for name, one in columns.items() if name.startswith("one_hot="))
    assert_array_equal(total, np.ones(len(rows)))


@given(ROWS)
def test_law_columns_are_finite(rows: list[dict[str, Any]]) -> None:
    assert all(np.isfinite(one).all() for one in normalize(FEATURES, rows).values())


@given(WILD_ROWS)
def test_law_the_problems_of_many_rows_are_those_of_each(rows: list[dict[str, Any]]) -> None:
    def complaints(requested: list[dict[str, Any]], first: int) -> list[str]:
        try:
            normalize(FEATURES, requested, locate=lambda row: f"$.instances[{first + row}]")
        except InvalidPayload as refused:
            return list(map(str, refused.problems))
        return []

    assert complaints(rows, 0) == [problem for index, row in enumerate(rows) for problem in complaints([row], index)]


@given(st.lists(ANYTHING, min_size=1, max_size=8))
def test_law_whatever_is_sent_is_encoded_or_has_a_reason(values: list[Any]) -> None:
    for feature in FEATURES:
        columns, reasons = encode(feature, values)
        assert set(reasons) <= set(range(len(values)))
        assert all(message and remedy for message, remedy in reasons.values())
        sound = [row for row in range(len(values)) if row not in reasons]
        assert all(np.isfinite(one[sound]).all() for one in columns.values())


def test_numpys_numbers_are_numbers_in_process_and_its_booleans_are_not() -> None:
    age = NumberFeature("Age")
    row = {"Age": np.int64(7)}
    assert normalize([age], [row, {"Age": np.float32(1.5)}])["Age"].tolist() == [7.0, 1.5]
    pclass = CategoryFeature("Pclass", (1, 2, 3))
    assert normalize([pclass], [{"Pclass": np.int64(3)}])["Pclass"].tolist() == [2.0]
    with pytest.raises(InvalidPayload):
        normalize([age], [{"Age": np.True_}])
    with pytest.raises(InvalidPayload):
        normalize([pclass], [{"Pclass": np.True_}])
