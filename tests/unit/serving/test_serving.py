"""TensorFlow Serving's REST protocol; expectations are its documentation's: https://www.tensorflow.org/tfx/serving/api_rest."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import BINARY, REGRESSION, THREE, release, released
from stepensemble.core.aggregation.output import Prediction
from stepensemble.core.errors import InvalidOutput, InvalidPayload, LabelUnknown, ServableNotFound
from stepensemble.core.releases.release import Canary, ReleasedMember, ReleasePointer
from stepensemble.core.schema.manifest import (
    BooleanFeature,
    CategoryFeature,
    ImageFeature,
    NumberFeature,
    TensorFeature,
)
from stepensemble.core.schema.outputs import Probability, Value
from stepensemble.core.schema.task import Task
from stepensemble.serving.requests import PredictRequest, encode_rows, parse_examples, parse_predict
from stepensemble.serving.responses import (
    check_method,
    classify_rows,
    list_canonical_outputs,
    list_member_outputs,
    list_outputs,
    list_probabilities,
    regress_rows,
    shape_response,
)
from stepensemble.serving.servables import (
    ModelSignature,
    ModelTensor,
    Servable,
    describe_metadata,
    describe_status,
    find_release,
    find_servable,
    list_served,
    version_of,
)

TAG = CategoryFeature("tag", vocabulary=("foo", "bar"))
SIGNAL = TensorFeature("signal", shape=(5,))
SENSOR = TensorFeature("sensor", shape=(2, 2))

ROWS = [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
]
"""The documentation's two instances of three named inputs."""

COLUMNS = {
    "tag": ["foo", "bar"],
    "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
    "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
}
"""The same in the documentation's columnar format."""

ENSEMBLE = Servable(release(REGRESSION, released("half"), features=(TAG, SIGNAL, SENSOR)), None)


def half(member: ReleasedMember | None = None, *features: Any, task: Task = REGRESSION) -> Servable:
    """A member that takes one number, as the documentation's half_plus_three does, unless given otherwise."""
    member = member or released("half")
    return Servable(release(task, member, features=features or (NumberFeature("x"),)), member)


def problems_of(read: Any, *arguments: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidPayload) as rejected:
        read(*arguments)
    return [(problem.path, problem.message) for problem in rejected.value.problems]


# ------------------------------------------------------------------------------------------------------- requests


def test_rows_and_columns_of_the_same_inputs_are_the_same_request() -> None:
    rows = parse_predict({"instances": ROWS}, ENSEMBLE)
    columns = parse_predict({"inputs": COLUMNS}, ENSEMBLE)
    assert (rows.form, columns.form) == ("rows", "columns")
    assert rows.rows == columns.rows == ROWS


def test_a_member_takes_what_its_model_takes_by_the_inputs_names() -> None:
    member = released("m", inputs={"tag": ("tag",), "signal": ("signal",), "sensor": ("sensor",)})
    servable = half(member, NumberFeature("tag"), SIGNAL, SENSOR)
    rows = [{**row, "tag": index} for index, row in enumerate(ROWS)]
    by_rows = parse_predict({"instances": rows}, servable).tensors
    by_columns = parse_predict({"inputs": {**COLUMNS, "tag": [0, 1]}}, servable).tensors
    assert by_rows is not None
    assert by_columns is not None
    assert {name: array.shape for name, array in by_rows.items()} == {
        "tag": (2, 1),
        "signal": (2, 5),
        "sensor": (2, 2, 2),
    }
    for name, array in by_rows.items():
        np.testing.assert_array_equal(array, by_columns[name])
    np.testing.assert_array_equal(by_rows["sensor"][1], [[4, 5], [6, 8]])


def test_values_without_a_name_are_for_the_only_input() -> None:
    # The documentation's two tensors of shape [1, 2].
    servable = half(released("m", inputs={"": ("t",)}), TensorFeature("t", shape=(1, 2)))
    for body in ({"instances": [[[1, 2]], [[3, 4]]]}, {"inputs": [[[1, 2]], [[3, 4]]]}):
        tensors = parse_predict(body, servable).tensors
        assert tensors is not None
        np.testing.assert_array_equal(tensors["inputs"], [[[1, 2]], [[3, 4]]])


def test_one_tensor_in_column_format_with_the_default_signature() -> None:
    servable = half(released("m", inputs={"": ("t",)}), TensorFeature("t", shape=(2, 1)))
    request = parse_predict({"signature_name": "serving_default", "inputs": [[[0.3], [0.2]]]}, servable)
    assert request.form == "columns"
    assert request.tensors is not None
    np.testing.assert_array_equal(request.tensors["inputs"], np.array([[[0.3], [0.2]]], np.float32))


def test_values_without_a_name_are_for_the_ensembles_only_feature() -> None:
    servable = Servable(release(REGRESSION, released("half"), features=(TAG,)), None)
    assert parse_predict({"instances": ["foo", "bar", "foo"]}, servable).rows == [
        {"tag": "foo"},
        {"tag": "bar"},
        {"tag": "foo"},
    ]


def test_numbers_may_be_bare_if_the_model_takes_one_a_row() -> None:
    # curl -d '{"instances": [1.0,2.0,5.0]}' … half_plus_three:predict
    bare, listed = (parse_predict({"instances": sent}, half()) for sent in ([1.0, 2.0, 5.0], [[1.0], [2.0], [5.0]]))
    assert bare.tensors is not None
    assert listed.tensors is not None
    np.testing.assert_array_equal(bare.tensors["inputs"], listed.tensors["inputs"])
    assert (bare.bare, listed.bare) == (True, False)


def test_a_members_inputs_precede_features_of_the_same_name_unless_the_signature_is_features() -> None:
    servable = half(released("m", inputs={"x": ("x",)}))
    body = {"instances": [{"x": 1.0}]}
    assert parse_predict(body, servable).tensors is not None
    assert parse_predict({**body, "signature_name": "features"}, servable).rows == [{"x": 1.0}]


def test_a_member_takes_features_where_no_name_is_an_input() -> None:
    assert parse_predict({"instances": [{"x": 1.0}]}, half()).rows == [{"x": 1.0}]
    assert parse_predict({"inputs": {"x": [1.0, 2.0]}}, half()).rows == [{"x": 1.0}, {"x": 2.0}]


DENSE = ModelSignature((ModelTensor("dense_input", "float32", (1,)),), (ModelTensor("dense_1", "float32", (1,)),))
"""The names that Keras gives the tensors of a SavedModel."""


def own(*features: Any, signature: ModelSignature = DENSE) -> Servable:
    """A member whose model's own names are known."""
    return replace(half(None, *features), signature=signature)


@pytest.mark.parametrize(
    ("body", "bare"),
    [
        ({"instances": [{"dense_input": 1.0}, {"dense_input": 2.0}]}, True),
        ({"instances": [{"dense_input": [1.0]}, {"dense_input": [2.0]}]}, False),
        ({"inputs": {"dense_input": [1.0, 2.0]}}, True),
        ({"inputs": {"dense_input": [[1.0], [2.0]]}}, False),
        ({"inputs": {"inputs": [[1.0], [2.0]]}}, False),
        ({"inputs": [[1.0], [2.0]]}, False),
        ({"instances": [1.0, 2.0]}, True),
    ],
)
def test_a_models_own_name_and_the_general_one_and_none_are_the_same_request(body: object, bare: bool) -> None:
    request = parse_predict(body, own())
    assert request.tensors is not None
    ((_, tensor),) = request.tensors.items()
    np.testing.assert_array_equal(tensor, [[1.0], [2.0]])
    assert request.bare == bare


def test_a_models_own_name_precedes_a_feature_of_that_name_and_other_names_are_features() -> None:
    named_alike = own(NumberFeature("dense_input"))
    assert parse_predict({"instances": [{"dense_input": 1.0}]}, named_alike).tensors is not None
    body = {"instances": [{"dense_input": 1.0}], "signature_name": "features"}
    assert parse_predict(body, named_alike).rows == [{"dense_input": 1.0}]
    assert parse_predict({"instances": [{"x": 1.0}]}, own()).rows == [{"x": 1.0}]


@pytest.mark.parametrize("body", [{"instances": [{"nope": 1.0}]}, {"inputs": {"nope": [1.0]}}])
def test_a_name_that_is_neither_is_rejected_with_those_that_are(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidPayload) as rejected:
        parse_predict(body, own())
    (problem,) = rejected.value.problems
    assert problem.path == f"$.{next(iter(body))}"
    assert problem.message == '"nope" is neither an input of "half" nor a feature'
    assert problem.remedy == 'use "dense_input", or the features "x"'


def test_metadata_lists_a_models_own_names_types_and_shapes() -> None:
    unsure = ModelSignature(
        (ModelTensor("tokens", "int64", (None,)),), (ModelTensor("a", "string", None), ModelTensor("b", "bfloat16", ()))
    )
    listed = signatures(own())["serving_default"]
    assert types(listed["inputs"]) == {"dense_input": ("DT_FLOAT", ["-1", "1"])}
    assert types(listed["outputs"]) == {"dense_1": ("DT_FLOAT", ["-1", "1"])}
    member = released("m", Value(name="a"))
    listed = signatures(Servable(release(REGRESSION, member), member, unsure))["serving_default"]
    assert types(listed["inputs"]) == {"tokens": ("DT_INT64", ["-1", "-1"])}
    assert listed["outputs"] == {
        "a": {"dtype": "DT_STRING", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": "a:0"}
    }


def test_a_list_of_one_value_and_base64_text_are_the_value() -> None:
    image = ImageFeature("photo", size=(8, 8))
    servable = Servable(release(REGRESSION, released("half"), features=(TAG, NumberFeature("x"), image)), None)
    encoded = {"b64": "Zm9v"}  # "foo"
    sent = {"tag": encoded, "x": [3], "photo": encoded}
    assert parse_predict({"instances": [sent]}, servable).rows == [{"tag": "foo", "x": 3, "photo": encoded}]


def test_base64_is_a_feature_for_a_member_too() -> None:
    servable = half(released("m", inputs={"": ("photo",)}), ImageFeature("photo", size=(8, 8)))
    image = {"b64": "Zm9v"}
    named = replace(servable, signature=ModelSignature((ModelTensor("photo", "float32", (8, 8, 3)),), ()))
    for requested in (servable, named):
        for body in ({"instances": [image]}, {"inputs": [image]}):
            assert parse_predict(body, requested).rows == [{"photo": image}]
        for body in ({"instances": [{"photo": image}]}, {"inputs": {"photo": [image]}}):
            assert parse_predict(body, requested).rows == [{"photo": image}]


def test_examples_are_completed_by_their_context() -> None:
    body = {"context": {"tag": "foo"}, "examples": [{"signal": [1]}, {"signal": [2]}]}
    assert parse_examples(body, ENSEMBLE).rows == [{"tag": "foo", "signal": [1]}, {"tag": "foo", "signal": [2]}]


def test_a_feature_is_in_the_context_or_in_the_examples() -> None:
    body = {"context": {"tag": "foo"}, "examples": [{"signal": [1]}, {"tag": "bar"}]}
    assert problems_of(parse_examples, body, ENSEMBLE) == [("$.examples[1].tag", "is in the context too")]


@pytest.mark.parametrize("name", ["tensorflow/serving/regress", "serving_default", ""])
def test_regress_takes_the_documentations_request(name: str) -> None:
    body = {"signature_name": name, "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert parse_examples(body, half()).rows == [{"x": 1.0}, {"x": 2.0}]


def test_a_members_signature_may_be_named() -> None:
    servable = half(released("m", signature="score"))
    assert parse_predict({"signature_name": "score", "instances": [1]}, servable).tensors is not None


def test_unknown_keys_are_ignored() -> None:
    assert parse_predict({"instances": [1], "output_filter": ["y"]}, half()).tensors is not None


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ([], "$", "[] is not an object"),
        ({}, "$", "has neither instances nor inputs"),
        ({"instances": [1], "inputs": [1]}, "$", "has both instances and inputs"),
        ({"instances": 1}, "$.instances", "1 is not a list"),
        ({"instances": []}, "$.instances", "is empty"),
        ({"instances": [1] * 10_001}, "$.instances", "has 10,001 rows"),
        ({"instances": [{"x": 1}, 2]}, "$.instances[1]", "2 is not an object"),
        ({"inputs": {}}, "$.inputs", "is empty"),
        ({"inputs": {"x": 1}}, "$.inputs.x", "1 is not a list"),
        ({"inputs": {"x": [1, 2], "y": [1]}}, "$.inputs.y", 'has 1 rows, and "x" has 2'),
        ({"signature_name": 100, "instances": [1]}, "$.signature_name", "100 is not a string"),
        ({"signature_name": "no", "instances": [1]}, "$.signature_name", '"no" is not a signature of "half"'),
    ],
)
def test_a_bad_structure_is_rejected_with_its_place(body: object, path: str, message: str) -> None:
    assert problems_of(parse_predict, body, half()) == [(path, message)]


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_several_features_need_names(key: str) -> None:
    message = 'has no names, and "halves" takes 3 features: "tag", "signal", "sensor"'
    assert problems_of(parse_predict, {key: [1]}, ENSEMBLE) == [(f"$.{key}", message)]


def test_every_wrong_tensor_is_named_at_its_place() -> None:
    body = {"instances": [1, "a", [1, 2], float("nan"), None]}
    assert [path for path, _ in problems_of(parse_predict, body, half())] == [
        "$.instances[1]",
        "$.instances[2]",
        "$.instances[3]",
        "$.instances[4]",
    ]
    servable = half(released("m", inputs={"a": ("x",), "b": ("x",)}))
    columns = {"inputs": {"a": [1, True], "b": [1, "no"]}}
    assert [path for path, _ in problems_of(parse_predict, columns, servable)] == ["$.inputs.a[1]", "$.inputs.b[1]"]
    assert problems_of(parse_predict, {"instances": [{"a": 1}]}, servable) == [("$.instances[0].b", "is missing")]


@pytest.mark.parametrize(
    ("parsed", "places"),
    [
        (PredictRequest("rows", rows=[{"x": 1}, {"x": "a", "y": 1}]), ["$.instances[1].x", "$.instances[1].y"]),
        (PredictRequest("columns", rows=[{"x": 1}, {"x": "a", "y": 1}]), ["$.inputs.x[1]", "$.inputs.y[1]"]),
        (PredictRequest("examples", rows=[{"x": 1}, {"x": "a", "y": 1}]), ["$.examples[1].x", "$.examples[1].y"]),
    ],
)
def test_every_bad_feature_is_named_where_the_client_put_it(parsed: PredictRequest, places: list[str]) -> None:
    features = (NumberFeature("x"),)
    assert [path for path, _ in problems_of(encode_rows, features, parsed)] == places


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "b64", "tag"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["instances", "inputs", "examples", "context", "signature_name"]), JSON))
def test_whatever_is_sent_is_read_or_rejected_as_a_payload(body: dict[str, Any]) -> None:
    for servable in (half(), ENSEMBLE, half(released("m", inputs={"x": ("x",), "tag": ("x",)}))):
        for read in (parse_predict, parse_examples):
            with suppress(InvalidPayload):  # no other error
                request = read(body, servable)
                if request.rows is not None:
                    encode_rows(servable.release.features, request)


# ------------------------------------------------------------------------------------------------------ responses


def prediction(value: float | None, label: str | None = None, probabilities: list[float] | None = None) -> Prediction:
    return Prediction(value, 0.0, 0.0, "accept", label=label, probabilities=probabilities or [])


def test_of_one_output_the_name_is_left_out() -> None:
    assert shape_response("rows", {"y": [3.5, 4.0, 5.5]}) == {"predictions": [3.5, 4.0, 5.5]}
    assert shape_response("columns", {"y": [3.5, 4.0, 5.5]}) == {"outputs": [3.5, 4.0, 5.5]}


def test_several_outputs_have_the_form_of_the_request() -> None:
    outputs = {"probability": [0.25, 0.75], "label": ["no", "yes"]}
    assert shape_response("columns", outputs) == {"outputs": outputs}
    assert shape_response("rows", outputs) == {
        "predictions": [{"probability": 0.25, "label": "no"}, {"probability": 0.75, "label": "yes"}]
    }


def test_the_ensembles_outputs_follow_from_its_task() -> None:
    assert list_outputs(REGRESSION, [prediction(2.5)]) == {"value": [2.5]}
    assert list_outputs(BINARY, [prediction(0.75, "yes")]) == {"probability": [0.75], "label": ["yes"]}
    probabilities = [0.5, 0.25, 0.25]
    assert list_outputs(THREE, [prediction(0, "red", probabilities)]) == {
        "probabilities": [probabilities],
        "label": ["red"],
    }


def test_a_missing_label_is_empty() -> None:
    assert list_outputs(THREE, [prediction(None, None, [0.5, 0.5, 0.0])])["label"] == [""]


def test_a_members_output_is_its_models() -> None:
    request, bare = PredictRequest("rows"), PredictRequest("rows", bare=True)
    member = released("m")
    assert list_member_outputs(member, request, [[3.5], [4.0]]) == {"output_0": [[3.5], [4.0]]}
    assert list_member_outputs(member, bare, [[3.5], [4.0]]) == {"output_0": [3.5, 4.0]}
    assert list_member_outputs(member, bare, [[3.5, 1.0], [4.0, 1.0]]) == {"output_0": [[3.5, 1.0], [4.0, 1.0]]}
    named = released("m", Value(name="y"))
    assert list_member_outputs(named, request, [[3.5]]) == {"y": [[3.5]]}


def test_classify_returns_pairs_of_label_and_score() -> None:
    assert classify_rows(("red", "green"), [[0.25, 0.75], [1.0, 0.0]]) == {
        "results": [[["red", 0.25], ["green", 0.75]], [["red", 1.0], ["green", 0.0]]]
    }
    assert list_probabilities([prediction(0.75, "yes", [0.25, 0.75])]) == [[0.25, 0.75]]


def test_regress_returns_a_number_for_each_row() -> None:
    assert regress_rows([3.5, 4.0]) == {"results": [3.5, 4.0]}


def test_a_members_output_is_converted_by_its_contract() -> None:
    member = released("m", Probability(of="no"))
    np.testing.assert_allclose(list_canonical_outputs(BINARY, member, [[0.25]]), [[0.25, 0.75]])
    scaled = released("m", Value(scale=2.0, offset=1.0))
    np.testing.assert_allclose(list_canonical_outputs(REGRESSION, scaled, [[3.0], [4.0]]), [7.0, 9.0])


def test_a_row_without_a_prediction_is_null_beside_the_others() -> None:
    lost = Prediction(None, None, None, "failed", None, missing=["m"], failure="too few")
    predictions = [prediction(0.75, "yes", [0.25, 0.75]), lost]
    assert list_outputs(BINARY, predictions) == {"probability": [0.75, None], "label": ["yes", ""]}
    assert list_outputs(THREE, [lost]) == {"probabilities": [None], "label": [""]}
    assert classify_rows(("no", "yes"), list_probabilities(predictions)) == {
        "results": [[["no", 0.25], ["yes", 0.75]], []]
    }
    assert regress_rows([one.value for one in predictions]) == {"results": [0.75, None]}


def test_a_members_unusable_output_is_null_and_an_error_where_no_row_has_another() -> None:
    member, request = released("m", Probability()), PredictRequest(rows=[{}, {}], form="rows", bare=True, tensors=None)
    assert list_member_outputs(member, request, [[0.5], [None]]) == {"output_0": [0.5, None]}
    with pytest.raises(InvalidOutput, match="the output is not finite in any of 2 rows"):
        list_member_outputs(member, request, [[None], [None]])
    assert list_canonical_outputs(BINARY, member, [[0.25], [None], [1.5]]) == [[0.75, 0.25], None, None]
    with pytest.raises(InvalidOutput, match=r"the output of row 0 is not finite \(2 of 2 rows\)"):
        list_canonical_outputs(BINARY, member, [[None], [1.5]])


@pytest.mark.parametrize(
    ("task", "classify", "regress"), [(REGRESSION, False, True), (BINARY, True, True), (THREE, True, False)]
)
def test_a_task_has_the_methods_that_fit_it(task: Task, classify: bool, regress: bool) -> None:
    for method, allowed in (("classify", classify), ("regress", regress)):
        if allowed:
            check_method(task, method)
        else:
            assert [path for path, _ in problems_of(check_method, task, method)] == ["$"]


# ------------------------------------------------------------------------------------------ servables and versions

A, B = "0000000000007" + "f" * 51, "00000000000ff" + "0" * 51
NOW = "2026-03-01T00:00:00.000+00:00"


def test_a_version_is_the_first_13_hex_digits_of_the_releases_digest() -> None:
    assert (version_of(A), version_of(B)) == (7, 255)


@given(st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_version_survives_a_double(digest: str) -> None:
    assert int(float(version_of(digest))) == version_of(digest)


def test_labels_and_versions_name_the_current_release_and_the_canary() -> None:
    current = ReleasePointer(A, {}, NOW, canary=Canary(B, {}, 10, NOW))
    assert list_served(current) == (A, B)
    assert find_release(current, "m", None, None) is None
    assert find_release(current, "m", 7, None) == A
    assert find_release(current, "m", 255, None) == B
    assert find_release(current, "m", None, "stable") == A
    assert find_release(current, "m", None, "canary") == B


def test_an_unknown_servable_gets_tensorflow_servings_message() -> None:
    current = ReleasePointer(A, {}, NOW)
    with pytest.raises(ServableNotFound, match=r"^Servable not found for request: Specific\(m, 255\)$"):
        find_release(current, "m", 255, None)
    with pytest.raises(LabelUnknown, match=r"^Unrecognized servable version label: canary$"):
        find_release(current, "m", None, "canary")
    with pytest.raises(ServableNotFound, match=r"^Servable not found for request: Latest\(half\)$"):
        find_servable(release(REGRESSION, released("m")), "half")


def test_a_name_is_the_ensembles_or_a_members() -> None:
    served = release(REGRESSION, released("half"), released("other"))
    assert find_servable(served, "halves").member is None
    assert find_servable(served, "other") == Servable(served, served.members[1])


def test_the_status_is_as_documented() -> None:
    assert describe_status([A]) == {
        "model_version_status": [
            {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_metadata_describes_the_inputs_and_outputs_of_a_members_model() -> None:
    described = describe_metadata(half(), A)
    assert described["model_spec"] == {"name": "half", "signature_name": "", "version": "7"}
    one = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False},
    }
    assert described["metadata"]["signature_def"]["signature_def"]["serving_default"] == {
        "inputs": {"inputs": {**one, "name": "inputs:0"}},
        "outputs": {"output_0": {**one, "name": "output_0:0"}},
        "method_name": "tensorflow/serving/predict",
    }


def signatures(servable: Servable) -> dict[str, Any]:
    described: dict[str, Any] = describe_metadata(servable, A)["metadata"]["signature_def"]["signature_def"]
    return described


def types(tensors: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    return {
        name: (tensor["dtype"], [dim["size"] for dim in tensor["tensor_shape"]["dim"]])
        for name, tensor in tensors.items()
    }


def test_metadata_describes_the_ensembles_features() -> None:
    whole = CategoryFeature("class", vocabulary=(1, 2, 3))
    features = (TAG, whole, SIGNAL, BooleanFeature("flag"), NumberFeature("x"), ImageFeature("i", size=(8, 8)))
    described = signatures(Servable(release(THREE, released("m", "label"), features=features), None))
    assert types(described["serving_default"]["inputs"]) == {
        "tag": ("DT_STRING", ["-1"]),
        "class": ("DT_INT64", ["-1"]),
        "signal": ("DT_FLOAT", ["-1", "5"]),
        "flag": ("DT_BOOL", ["-1"]),
        "x": ("DT_FLOAT", ["-1"]),
        "i": ("DT_STRING", ["-1"]),
    }
    assert types(described["serving_default"]["outputs"]) == {
        "probabilities": ("DT_FLOAT", ["-1", "3"]),
        "label": ("DT_STRING", ["-1"]),
    }


@pytest.mark.parametrize(
    ("task", "more"), [(REGRESSION, {"regress"}), (BINARY, {"classify", "regress"}), (THREE, {"classify"})]
)
def test_metadata_names_the_methods_that_fit_the_task(task: Task, more: set[str]) -> None:
    described = signatures(Servable(release(task, released("m", "label")), None))
    assert set(described) == {"serving_default", "features", *(f"tensorflow/serving/{name}" for name in more)}
    assert all(one["method_name"].startswith("tensorflow/serving/") for one in described.values())


def test_metadata_is_json() -> None:
    for servable in (half(), ENSEMBLE):
        assert json.loads(json.dumps(describe_metadata(servable, A))) == describe_metadata(servable, A)
