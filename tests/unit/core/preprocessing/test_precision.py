"""Numbers of more than seven digits: what a model takes in float64 or in whole numbers, it gets, at every way in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

import asl
from builders import REGRESSION, ROOT, X, fingerprint, member, model, release, released, sources
from memory import SLOTS, MemoryStack
from stepensemble import Ensemble
from stepensemble.admission.gate import run_gate
from stepensemble.batch.input.frame_encoder import encode_frame
from stepensemble.core.errors import InputMismatch, InvalidPayload
from stepensemble.core.preprocessing.columns import (
    columns_from_bytes,
    columns_from_json,
    columns_to_bytes,
    columns_to_json,
)
from stepensemble.core.preprocessing.encoding import normalize
from stepensemble.core.preprocessing.single_row import prepare_row
from stepensemble.core.releases.diff import compare_releases
from stepensemble.core.releases.release import encode_release
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    Feature,
    ImageFeature,
    MinMax,
    NumberFeature,
    Standard,
    TensorFeature,
)
from stepensemble.publishing.publish import publish
from stepensemble.runtimes import Signature, Tensor, load_model
from stepensemble.runtimes.precision import DOUBLES, WHOLES, list_narrowed
from stepensemble.serving.requests import parse_predict
from stepensemble.serving.servables import Servable, describe_metadata, list_inputs

ENSEMBLE = json.loads((ROOT / "statemachine" / "ensemble.asl.json").read_text())
ODD = 2**24 + 1
"""The first whole number that a float32 does not have: it becomes 2^24."""
DOUBLE = NumberFeature("x", dtype="float64")
EXACT: dict[str, Any] = {**X, "dtype": "float64"}


def test_a_column_has_the_digits_that_its_feature_declares() -> None:
    for dtype, expected in (("float32", 2.0**24), ("float64", ODD)):
        column = normalize([NumberFeature("x", dtype=dtype)], [{"x": ODD}])["x"]  # type: ignore[arg-type]
        assert (column.dtype.name, column.tolist()) == (dtype, [expected])
    scaled = normalize([NumberFeature("x", scaling=Standard(2**24, 2), dtype="float64")], [{"x": ODD}])
    assert scaled["x"].tolist() == [0.5]
    scaled = normalize([NumberFeature("x", min=0, scaling=MinMax(0, 2**25), dtype="float64")], [{"x": ODD}])
    assert scaled["x"].tolist() == [ODD / 2**25]


def test_a_number_too_large_is_refused_by_the_bits_that_there_are() -> None:
    assert normalize([DOUBLE], [{"x": 1e39}])["x"].tolist() == [1e39]
    with pytest.raises(InvalidPayload, match="1e\\+39 is too large for a 32-bit number"):
        normalize([NumberFeature("x")], [{"x": 1e39}])


def test_columns_of_both_kinds_travel_with_every_bit_and_stay_what_they_are() -> None:
    columns = normalize([DOUBLE, NumberFeature("y")], [{"x": ODD, "y": 0.1}, {"x": 0.1, "y": 1}])
    for back in (
        columns_from_json(json.loads(json.dumps(columns_to_json(columns)))),
        columns_from_bytes(columns_to_bytes(columns)),
    ):
        assert {name: (column.dtype.name, column.tobytes()) for name, column in back.items()} == {
            name: (column.dtype.name, column.tobytes()) for name, column in columns.items()
        }


def test_a_batch_encodes_as_an_execution_does() -> None:
    features = [DOUBLE, NumberFeature("y"), TensorFeature("t", shape=(1,), dtype="float64")]
    rows = [{"x": ODD, "y": ODD, "t": [ODD]}, {"x": -0.1, "y": 0.1, "t": [0.1]}]
    expected = normalize(features, rows)
    text = pl.DataFrame([{name: json.dumps(value) for name, value in row.items()} for row in rows])
    for frame, typed in ((pl.DataFrame(rows, strict=False), True), (text, False)):
        encoded = encode_frame(features, frame, typed=typed)
        assert encoded.accepted.all()
        for name, column in expected.items():
            assert (encoded.columns[name].dtype, encoded.columns[name].tobytes()) == (column.dtype, column.tobytes())


def test_one_row_alone_is_encoded_as_many_are() -> None:
    assert prepare_row([DOUBLE, NumberFeature("y")]) is None  # so `normalize` encodes it


# What models take


def column(*values: float) -> Any:
    return np.array(values, dtype=np.float64)[:, None]


def test_a_model_of_float32_is_given_float32() -> None:
    half = load_model("litert", model("half_plus_two"))
    assert half.predict(column(0.1, 3)).tobytes() == half.predict(column(0.1, 3).astype(np.float32)).tobytes()
    with pytest.raises(InputMismatch, match="the model takes float32, and row 1 of its columns is too large for that"):
        half.predict(column(1, 1e39))


def test_whole_numbers_are_taken_as_far_as_columns_have_them() -> None:
    long = load_model("litert", model("long_plus_one"))
    assert long.predict(column(ODD, -(2**53) + 1)).ravel().tolist() == [ODD + 1, -(2**53) + 2]
    with pytest.raises(InputMismatch, match=r"row 0 of its columns holds no whole number below 2\^53$"):
        long.predict(column(2**53))
    with pytest.raises(InputMismatch, match=r'row 1 .* below 2\^24; for greater ones .* "dtype": "float64"'):
        long.predict(column(1, ODD).astype(np.float32))
    indexed = load_model("litert", model("indexed"))
    with pytest.raises(InputMismatch, match=r'the input "i" takes int32, and row 0 .* no whole number below 2\^31'):
        indexed.predict({"i": column(2**31), "x": column(0)})


# Every way in


def test_every_way_in_gives_a_model_of_whole_numbers_all_digits(tmp_path: Path) -> None:
    members = (member("long", "long_plus_one"), member("half"))
    read = sources(tmp_path, *members, features=[EXACT], golden=[{"x": 1}], quorum={"min_members": 2})
    expected, half = ODD + 1, ODD // 2 + 2  # of 2^24 in float32, half of which is half of 2^24 + 1, rounded down
    ensemble = Ensemble.load(read.path)
    for payload in ({"features": {"x": ODD}}, {"instances": [{"x": ODD}] * 3}):
        assert [one["outputs"][0] for one in ensemble.predict(payload)["members"]] == [expected, half]
    assert ensemble.predict_table({"x": [ODD, 1]})["value"].to_list() == [(expected + half) / 2, (2 + 2.5) / 2]
    stack = MemoryStack()
    publish(read, stack.releases, SLOTS, fingerprint=fingerprint(read))
    functions = {**stack.slots, "${NormalizeFunctionArn}": stack.normalize, "${AggregateFunctionArn}": stack.aggregate}
    inline = asl.run(ENSEMBLE, functions, {"features": {"x": ODD}}, "inline")
    assert [one["outputs"] for one in inline["members"]] == [[expected], [half]]
    many = asl.run(ENSEMBLE, functions, {"instances": [{"x": ODD}] * 10_000}, "many")
    outputs = [np.load(io.BytesIO(stack.data.read(one["outputs"]["s3"].split("/", 3)[3]))) for one in many["members"]]
    assert [set(array.tolist()) for array in outputs] == [{expected}, {half}]


def test_a_member_with_named_inputs_takes_all_digits_too() -> None:
    servable = Servable(one := release(REGRESSION, released("long"), features=(DOUBLE,)), one.members[0])
    question = parse_predict({"instances": [ODD]}, servable)
    assert question.tensors is not None
    (tensor,) = question.tensors.values()
    assert (tensor.dtype.name, tensor.tolist()) == ("float64", [[ODD]])
    assert [one.dtype for one in list_inputs(servable).values()] == ["float64"]
    signatures = describe_metadata(servable, "d" * 64)["metadata"]["signature_def"]["signature_def"]
    assert [one["dtype"] for one in signatures["features"]["inputs"].values()] == ["DT_DOUBLE"]


@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_a_model_of_float64_that_passed_no_gate_fails_rather_than_lose_digits(
    tmp_path: Path, dtype: str | None
) -> None:
    features = [X if dtype is None else {**X, "dtype": dtype}]
    members = (member("double", "doubles"), member("half"))
    read = sources(tmp_path, *members, features=features, golden=[{"x": 1}], quorum={"min_members": 1})
    ensemble = Ensemble.load(read.path)
    stack = MemoryStack()
    publish(read, stack.releases, SLOTS, fingerprint=fingerprint(read))
    functions = {**stack.slots, "${NormalizeFunctionArn}": stack.normalize, "${AggregateFunctionArn}": stack.aggregate}
    payload = {"features": {"x": ODD}}
    for output in (ensemble.predict(payload), asl.run(ENSEMBLE, functions, payload, "one")):
        double, half = output["members"]
        assert half["outputs"] == [ODD // 2 + 2]
        if dtype is None:
            assert double["error"]["type"] == "InputMismatch"
            assert 'such as "x", "dtype": "float64"' in double["error"]["message"]
        else:
            given = float(np.dtype(dtype).type(ODD))
            assert double["outputs"] == load_model("litert", model("doubles")).predict(column(given)).ravel().tolist()


# The gate


@pytest.mark.parametrize(
    ("more", "refused"), [({}, True), ({"dtype": "float64"}, False), ({"dtype": "float32"}, False)]
)
def test_a_model_of_float64_is_not_given_less_unless_that_is_declared(
    tmp_path: Path, more: dict[str, Any], refused: bool
) -> None:
    report = run_gate(sources(tmp_path, member("a", "doubles"), member("b"), features=[{**X, **more}]))
    assert [problem.path for problem in report.problems] == ["$.members[0]"] * refused
    if refused:
        (problem,) = report.problems
        assert 'it takes float64, and gets "x" in float32, in which 16777217 is 16777216' in problem.message
        assert 'give the features "x" "dtype": "float64", or "float32" where' in problem.remedy


def test_features_that_lose_digits_are_named_input_by_input() -> None:
    features: list[Feature] = [
        NumberFeature("n"),
        NumberFeature("exact", dtype="float64"),
        NumberFeature("enough", dtype="float32"),
        CategoryFeature("c", ("a", "b")),
        BooleanFeature("b"),
        TensorFeature("t", shape=(2,)),
        TensorFeature("w", shape=(2,), dtype="int64"),
        ImageFeature("i", size=(2, 2)),
    ]
    names = [one.name for one in features]
    tensors = tuple(Tensor(name, "float64", ()) for name in names)
    each = {name: (name,) for name in names}
    assert list_narrowed(Signature(None, tensors, tensors, None), each, features, DOUBLES) == ["n", "t"]
    single = Signature(None, (Tensor("x", "int64", (2,)),), tensors, None)
    assert list_narrowed(single, {"": ("c", "n")}, features, WHOLES) == ["n"]
    assert list_narrowed(single, {"": ("c", "n")}, features, DOUBLES) == []


def test_a_release_omits_the_dtype_where_the_manifest_does() -> None:
    before, after = (release(REGRESSION, released("a"), features=(one,)) for one in (NumberFeature("x"), DOUBLE))
    assert b"dtype" not in encode_release(before)[1]
    (difference,) = compare_releases(before, after)
    assert difference.words == "feature x: dtype float32 → float64"
    assert (difference.before, difference.after) == (None, "float64")
    assert msgspec.json.decode(msgspec.json.encode(difference))["to"] == "float64"
    two = release(REGRESSION, released("a"), features=(NumberFeature("x"), NumberFeature("y")))
    assert [one.words for one in compare_releases(before, two)] == ["feature y: added (number)"]
