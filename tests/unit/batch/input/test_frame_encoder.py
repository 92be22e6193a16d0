from __future__ import annotations

import datetime
import decimal
import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

from builders import ROOT
from stepensemble.batch.input.frame_encoder import EncodedRows, encode_frame, find_distinct, read_texts
from stepensemble.batch.output.result_table import to_text
from stepensemble.core.errors import InvalidPayload
from stepensemble.core.preprocessing.encoding import NUMERAL, all_column_names, normalize
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    Feature,
    Log1p,
    Manifest,
    MinMax,
    NumberFeature,
    Standard,
    TensorFeature,
)

Row = Mapping[str, Any]

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMERALS = st.one_of(
    FINITE.map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.text("0123456789+-.eE _xinfaINF\t٣", max_size=8),
)
WORDS = st.sampled_from(["a", "b", "A", " a", "ab", "1", "1.0", "2", " 2 ", "3.5", "true", "False", "", "é", "1e400"])


@st.composite
def numbers(draw: st.DrawFn, name: str) -> NumberFeature:
    bounds = sorted(draw(st.lists(st.sampled_from([-3.0, 0.0, 0.5, 10.0]), min_size=2, max_size=2)))
    low, high = (draw(st.sampled_from([None, bound])) for bound in bounds)
    scaling = draw(st.sampled_from([None, Standard(0.3, 1.7), MinMax(-1, 2.5), Log1p()]))
    low = 0.0 if isinstance(scaling, Log1p) else low  # as soundness wants it
    high = high if high is None or low is None or high >= low else low
    return NumberFeature(name, low, high, draw(st.sampled_from([None, 0.5])), scaling)


@st.composite
def categories(draw: st.DrawFn, name: str) -> CategoryFeature:
    vocabulary: Any = tuple(draw(st.sampled_from([("a", "b", "1"), (1, 2, 3), ("a", 1), ("1", 1, 2), ("é", "")])))
    missing = draw(st.sampled_from([None, vocabulary[0]]))
    # Of "1" and 1 two columns would have one name, which soundness refuses.
    encoding: Any = "index" if "1" in vocabulary and 1 in vocabulary else draw(st.sampled_from(["index", "one_hot"]))
    unknown: Any = draw(st.sampled_from(["error", "other"]))
    return CategoryFeature(name, vocabulary, encoding, unknown, missing)


@st.composite
def tensors(draw: st.DrawFn, name: str) -> TensorFeature:
    dtype: Any = draw(st.sampled_from(["float32", "int32", "int64", "uint8", "int8"]))
    return TensorFeature(name, draw(st.sampled_from([(2,), (1, 2), (2, 1, 2)])), dtype)


def booleans(name: str) -> st.SearchStrategy[BooleanFeature]:
    return st.sampled_from([None, True, False]).map(lambda missing: BooleanFeature(name, missing))


TYPED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pl.String, st.one_of(NUMERALS, WORDS)),
    (pl.Float64, st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.0, 2.0, 9.5]))),
    (pl.Float32, st.one_of(st.floats(width=32), st.sampled_from([1.0, 0.5]))),
    (pl.Int64, st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-1, 4))),
    (pl.UInt64, st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 4))),
    (pl.Int8, st.integers(-128, 127)),
    (pl.Boolean, st.booleans()),
    (pl.Null, st.none()),
    (pl.List(pl.Float64), st.lists(st.one_of(st.floats(), st.sampled_from([1.0, 300.0]), st.none()), max_size=3)),
    (pl.List(pl.Int64), st.lists(st.one_of(st.integers(-1, 300), st.none()), max_size=3)),
    (pl.List(pl.Boolean), st.lists(st.booleans(), min_size=2, max_size=2)),
    (
        pl.List(pl.List(pl.Float64)),
        st.lists(st.one_of(st.none(), st.lists(FINITE, min_size=2, max_size=2)), max_size=2),
    ),
    (pl.List(pl.List(pl.List(pl.Int32))), st.just([[[1, 2]], [[3, 4]]])),
    (pl.Array(pl.UInt8, 2), st.lists(st.integers(0, 255), min_size=2, max_size=2)),
    (pl.Object, st.one_of(st.booleans(), FINITE, st.integers(), WORDS, st.lists(st.integers(0, 9), max_size=2))),
    (pl.Struct({"x": pl.Int64}), st.just({"x": 1})),
]


@st.composite
def tables(draw: st.DrawFn, *, typed: bool) -> tuple[list[Feature], pl.DataFrame]:
    kinds = [numbers, categories, booleans, tensors]
    features: list[Feature] = [
        draw(kinds[draw(st.integers(0, 3))](f"f{place}"))  # type: ignore[operator] # strategies by name
        for place in range(draw(st.integers(1, 4)))
    ]
    rows = draw(st.integers(0, 6))
    cells = st.one_of(NUMERALS, WORDS, st.sampled_from(["[1, 2]", "[[1, 2.5]]", "[1", "[true, 1]", "[[1], [2, 3]]"]))
    columns = []
    for feature in features:
        dtype, values = draw(st.sampled_from(TYPED)) if typed else (pl.String, cells)
        drawn = draw(st.lists(st.one_of(st.none(), values, values, values), min_size=rows, max_size=rows))
        columns.append(pl.Series(feature.name, drawn, dtype=dtype))
    return features, pl.DataFrame(columns)


def list_rows(features: Sequence[Feature], frame: pl.DataFrame, *, typed: bool) -> list[Row]:
    """Return a frame as the rows of a payload."""
    columns = {feature.name: frame[feature.name].to_list() for feature in features}
    if not typed:
        columns = {feature.name: read_texts(feature, columns[feature.name]) for feature in features}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check_both_doors(features: Sequence[Feature], frame: pl.DataFrame, *, typed: bool) -> EncodedRows:
    """Encode the same rows as a frame and as payloads of one row each, so that accepted rows are separate."""
    encoded = encode_frame(features, frame, typed=typed)
    rows, good, words = list_rows(features, frame, typed=typed), [], []
    for number, row in enumerate(rows):
        try:
            normalize(features, [row], locate="{}".format)
        except InvalidPayload as refused:
            words += [
                (number, problem.path.partition(".")[2], problem.message, problem.remedy)
                for problem in refused.problems
            ]
        else:
            good.append(number)
    assert np.flatnonzero(encoded.accepted).tolist() == good
    assert encoded.wrong.select("index", "column", "reason", "remedy").rows() == words
    expected = normalize(features, [rows[number] for number in good])
    assert list(encoded.columns) == list(expected) == list(all_column_names(features))
    for name, column in expected.items():
        assert (encoded.columns[name].dtype, encoded.columns[name].shape) == (column.dtype, column.shape)
        assert encoded.columns[name].tobytes() == column.tobytes()
    return encoded


@settings(max_examples=200, deadline=None)
@given(tables(typed=True))
def test_typed_values_are_encoded_as_in_a_single_execution(table: tuple[list[Feature], pl.DataFrame]) -> None:
    check_both_doors(*table, typed=True)


@settings(max_examples=200, deadline=None)
@given(tables(typed=False))
def test_text_is_encoded_as_its_value_is_in_a_single_execution(
    table: tuple[list[Feature], pl.DataFrame],
) -> None:
    check_both_doors(*table, typed=False)


@given(st.lists(NUMERALS, min_size=20, max_size=20))
@settings(max_examples=200, deadline=None)
def test_polars_and_numerals_agree_on_finite_numbers(texts: list[str]) -> None:
    for text, number in zip(texts, pl.Series(texts).cast(pl.Float64, strict=False).to_list(), strict=True):
        if number is not None and np.isfinite(number):
            assert NUMERAL.fullmatch(text)
            assert float(text) == number


INVISIBLE = [
    chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in {"Cc", "Cf", "Zs", "Zl", "Zp"}
]
ODD_NUMERALS = [
    *["1_000", "1__0", "_1", "1_", "٣", "١٢.٥", "１", "1٣", "²", "Ⅷ", "infinity", "-inf", "nan", "NaN", "0x10", "0b1"],
    *["1e400", "-1e400", "1e-400", "-0", "+0", "1j", "1d5", "1,5", "1.e2", ".5e1"],
]


@pytest.mark.parametrize("typed", [False, True])
def test_invisible_characters_in_a_number_are_treated_equally_in_a_payload_and_in_the_batch(*, typed: bool) -> None:
    features = [NumberFeature("x"), CategoryFeature("x", (1, 2)), BooleanFeature("x"), TensorFeature("x", (1,))]
    texts = [
        text for mark in INVISIBLE for text in (f"1{mark}", f"{mark}1", f"1{mark}5", mark, f"true{mark}", f"[1]{mark}")
    ]
    frame = pl.DataFrame({"x": [*texts, *ODD_NUMERALS]})
    for feature in features:
        check_both_doors([feature], frame, typed=typed)


def test_a_deeply_nested_value_costs_only_its_row() -> None:
    features = [NumberFeature("x"), CategoryFeature("x", (1,)), BooleanFeature("x"), TensorFeature("x", (1,))]
    for depth in range(900, 1000):
        frame = pl.DataFrame({"x": ["[" * depth + "]" * depth]})
        with suppress(RecursionError):  # where it is nested too deeply to be read at all
            value = msgspec.json.decode(frame["x"][0])
            for feature in features:
                encoded = encode_frame([feature], pl.DataFrame({"x": pl.Series([value], dtype=pl.Object)}), typed=True)
                assert encoded.wrong.height == 1
            assert to_text(pl.Series([value], dtype=pl.Object))[0] is not None
        assert encode_frame([TensorFeature("x", (1,))], frame, typed=False).wrong.height == 1


def test_a_number_may_be_surrounded_by_blanks_only() -> None:
    """Return whether Unicode has a character as White_Space; U+001C to U+001F are not, although Python strips them."""
    around = {
        mark
        for mark in INVISIBLE
        if encode_frame([NumberFeature("x")], pl.DataFrame({"x": [f"{mark}1{mark}"]}), typed=False).accepted[0]
    }
    assert around == {mark for mark in INVISIBLE if mark.isspace()} - set("\x1c\x1d\x1e\x1f")


def test_a_numeral_is_what_python_reads_without_underscores_and_names_of_numbers() -> None:
    encoded = encode_frame([NumberFeature("x")], pl.DataFrame({"x": ODD_NUMERALS}), typed=False)
    read = [text for text, accepted in zip(ODD_NUMERALS, encoded.accepted.tolist(), strict=True) if accepted]
    assert read == ["٣", "١٢.٥", "１", "1٣", "1e-400", "-0", "+0", "1.e2", ".5e1"]
    assert encoded.values["x"].tolist() == [float(text) for text in read]


@pytest.mark.parametrize(
    ("feature", "texts", "meant"),
    [
        (NumberFeature("x"), ["1", " 2.5 ", "abc", None], ["1", " 2.5 ", "abc", None]),
        (CategoryFeature("x", ("a", "1")), ["a", "1", " a"], ["a", "1", " a"]),
        (CategoryFeature("x", (1, 2)), ["1", "+1", " 1 ", "1.0", "1e0", "1.5", "one"], [1, 1, 1, 1, 1, 1.5, "one"]),
        (CategoryFeature("x", ("1", 1, 2)), ["1", "2", "01"], ["1", 2, 1]),
        (BooleanFeature("x"), ["true", "FALSE", " True ", "1", "yes"], [True, False, True, "1", "yes"]),
        (TensorFeature("x", (2,)), ["[1, 2.5]", "[1", "[" * 100_000], [[1, 2.5], "[1", "[" * 100_000]),
    ],
)
def test_values_of_texts(feature: Feature, texts: list[str | None], meant: list[Any]) -> None:
    assert read_texts(feature, texts) == meant


def test_parquet_types_are_converted_to_json_types() -> None:
    features = [
        NumberFeature("price"),
        CategoryFeature("day", ("2026-03-01",)),
        CategoryFeature("port", ("C", "Q")),
        CategoryFeature("deck", ("A",)),
    ]
    frame = pl.DataFrame(
        {
            "price": pl.Series([decimal.Decimal("0.10"), decimal.Decimal("12.35")], dtype=pl.Decimal(10, 2)),
            "day": [datetime.date(2026, 3, 1)] * 2,
            "port": pl.Series(["Q", "C"], dtype=pl.Categorical),
            "deck": pl.Series(["A", "A"], dtype=pl.Enum(["A"])),
        }
    )
    encoded = encode_frame(features, frame, typed=True)
    assert encoded.wrong.is_empty()
    assert encoded.columns["price"].tolist() == [float(np.float32(0.1)), float(np.float32(12.35))]
    assert [encoded.columns[name].tolist() for name in ("day", "port", "deck")] == [[0, 0], [1, 0], [0, 0]]


def test_an_absent_column_is_missing_in_every_row() -> None:
    features = [NumberFeature("x", missing=2.0), NumberFeature("y")]
    encoded = encode_frame(features, pl.DataFrame({"z": [1, 2]}), typed=True)
    assert encoded.wrong.select("index", "column", "value", "reason").rows() == [
        (0, "y", None, "is missing"),
        (1, "y", None, "is missing"),
    ]


def test_a_rejected_value_is_shown_and_its_kind_does_not_contain_it() -> None:
    features = [
        NumberFeature("n", min=0),
        CategoryFeature("c", (1, 2)),
        BooleanFeature("b"),
        TensorFeature("t", (2,)),
    ]
    frame = pl.DataFrame({"n": [" -1", "x" * 300], "c": ["7", "1"], "b": ["no", "true"], "t": ["[1]", "[1, [2]]"]})
    wrong = encode_frame(features, frame, typed=False).wrong
    assert wrong.select("index", "column", "value", "kind").rows() == [
        (0, "n", " -1", "is out of range"),
        (0, "c", "7", "is not in the vocabulary"),
        (0, "b", "no", "is neither true nor false"),
        (0, "t", "[1]", "has shape"),
        (1, "n", "x" * 199 + "…", "is not a number"),
        (1, "t", "[1, [2]]", "has rows of different lengths"),
    ]


def test_values_are_those_of_accepted_rows_before_scaling() -> None:
    features = [
        NumberFeature("n", max=9, missing=0.5, scaling=MinMax(0, 4)),
        CategoryFeature("c", ("a", "b"), "one_hot", "other", "a"),
        CategoryFeature("d", ("a", "b"), missing="b"),
        BooleanFeature("b", missing=True),
        TensorFeature("t", (1,)),
    ]
    frame = pl.DataFrame(
        {
            "n": ["1", None, "10", "٣"],  # the third is out of range; the last is Arabic for 3
            "c": ["b", None, "a", "z"],
            "d": ["b", None, "a", "a"],
            "b": ["false", None, "true", "true"],
            "t": ["[1]"] * 4,
        }
    )
    values = encode_frame(features, frame, typed=False).values
    nan = np.nan
    np.testing.assert_equal(
        {name: numbers.tolist() for name, numbers in values.items()},
        {"n": [1, nan, 3], "c": [1, nan, 2], "d": [1, nan, 0], "b": [0, nan, 1]},
    )


@given(st.lists(st.none() | st.integers(0, 30), max_size=80), st.sampled_from([pl.Int64, pl.String, pl.Float64]))
def test_few_and_many_distinct_values_are_found_equally(values: list[int | None], dtype: Any) -> None:
    given_ = pl.Series(values, dtype=pl.Int64).cast(dtype)
    first, codes = find_distinct(given_)
    seen = list(dict.fromkeys(values))
    assert first.tolist() == [values.index(value) for value in seen]
    assert [seen[code] for code in codes.tolist()] == values


def test_distinct_values_are_identified_by_their_first_row() -> None:
    first, codes = find_distinct(pl.Series(["b", None, "a", "b", None]))
    assert (first.tolist(), codes.tolist()) == ([0, 1, 2], [0, 1, 2, 0, 1])


def test_an_integer_among_floats_is_shown_as_it_is_written() -> None:
    written = [1, 2.5, 7, -3, -0.0]
    features = [NumberFeature("x", min=1), CategoryFeature("y", (1, 2), unknown="other")]
    frame = pl.DataFrame({"x": written, "y": written}, strict=False)
    encoded = encode_frame(features, frame, typed=True, original=lambda _, rows: [written[row] for row in rows])
    assert encoded.wrong.select("index", "column", "reason").rows() == [
        (1, "y", "2.5 is not in the vocabulary"),
        (3, "x", "-3 is out of range"),
        (4, "x", "-0.0 is out of range"),
        (4, "y", "-0.0 is not in the vocabulary"),
    ]
    # 7 and -3 are integers, so they are the category "other"; -3 is too low for x.
    assert (encoded.columns["y"].tolist(), encoded.values["y"].tolist()) == ([0, 2], [0, 2])


def test_an_integer_that_no_float_represents_is_distinguished_from_its_neighbour() -> None:
    written = [2**53, 2**53 + 1, 0.5]
    frame = pl.DataFrame({"x": pl.Series([float(value) for value in written])})
    feature = CategoryFeature("x", (2**53,))
    encoded = encode_frame([feature], frame, typed=True, original=lambda _, rows: [written[row] for row in rows])
    assert encoded.accepted.tolist() == [True, False, False]
    assert encoded.wrong["value"].to_list() == ["9007199254740993", "0.5"]


def test_the_shipped_events_rows_are_encoded_equally_in_payload_and_batch() -> None:
    manifest = msgspec.json.decode((ROOT / "models" / "manifest.json").read_bytes(), type=Manifest)
    rows = [
        row
        for name in ("passengers", "bad-text-for-number")
        for row in json.loads((ROOT / "events" / f"{name}.json").read_bytes())["instances"]
    ]
    names = [feature.name for feature in manifest.features]
    frame = pl.DataFrame([pl.Series(name, [row.get(name) for row in rows], dtype=pl.Object) for name in names])
    check_both_doors(manifest.features, frame, typed=True)
