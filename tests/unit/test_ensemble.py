from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import stepensemble
from builders import X, member, sources
from first_use import run_watched
from stepensemble import Ensemble
from stepensemble.core.errors import InvalidManifest, InvalidPayload, QuorumNotMet, ReleaseNotCurrent

Y = {"name": "y", "type": "number"}


def load(folder: Path, *members: dict[str, Any], **more: Any) -> Ensemble:
    return Ensemble.load(sources(folder, *members, **more).path)


def test_a_regression_equals_the_value_computed_by_hand(tmp_path: Path) -> None:
    ensemble = load(tmp_path, member("half"), member("log", "logarithm"), quorum={"min_members": 1})
    output = ensemble.predict({"instances": [{"x": 1}, {"x": 1.0}], "prediction_id": "mine"})
    # half_plus_two(1) = 2.5, log(1) = 0
    assert output["predictions"] == [{"value": 1.25, "spread": 1.25, "range": 2.5, "decision": "accept"}] * 2
    assert (output["prediction_id"], output["release"], output["status"]) == ("mine", ensemble.digest, "COMPLETE")
    assert [one["outputs"] for one in output["members"]] == [[2.5, 2.5], [0.0, 0.0]]


def test_a_member_without_a_finite_output_degrades_the_prediction(tmp_path: Path) -> None:
    ensemble = load(tmp_path, member("half"), member("log", "logarithm"), quorum={"min_members": 1})
    output = ensemble.predict({"features": {"x": -1}})
    assert (output["status"], output["predictions"][0]["value"]) == ("DEGRADED", 1.5)
    assert output["members"][1]["error"]["type"] == "InvalidOutput"


def test_a_multiclass_ensemble_of_probabilities_and_labels(tmp_path: Path) -> None:
    ensemble = load(
        tmp_path,
        member("soft", "softmax", kind="probabilities"),
        member("label", "sign_label", kind="label", columns=["x"]),
        task={"type": "multiclass", "classes": ["red", "green", "blue"]},
        features=[X, Y],
        aggregation={"method": "hard_vote"},
    )
    (prediction,) = ensemble.predict({"features": {"x": -5, "y": 5}})["predictions"]
    # softmax([-5, 5, 0]) is surely green; the sign of -5 gives the label 0, red: a tie, and red comes first.
    assert (prediction["label"], prediction["tie"], prediction["probabilities"]) == ("red", True, [0.5, 0.5, 0.0])


@pytest.mark.parametrize("artifact", ["bare", "bare_one"])
def test_a_model_of_bare_numbers_predicts_one_row_many_and_a_table(tmp_path: Path, artifact: str) -> None:
    ensemble = load(tmp_path, member("half", artifact, columns=["x"]), features=[X, Y])
    rows = [{"x": x, "y": 0} for x in (1, 2, 5)]
    expected = [2.5, 3.0, 4.5]  # x / 2 + 2
    assert [one["value"] for one in ensemble.predict({"instances": rows})["predictions"]] == expected
    assert [ensemble.predict({"features": row})["predictions"][0]["value"] for row in rows] == expected
    table = ensemble.predict_table({"x": [1, 2, 5], "y": [0, 0, 0]})
    assert table["value"].to_list() == expected


def test_members_take_the_columns_they_name_in_their_order(tmp_path: Path) -> None:
    ensemble = load(
        tmp_path,
        member("forth", "softmax", kind="probabilities"),
        member("back", "softmax", kind="probabilities", columns=["y", "x"]),
        task={"type": "multiclass", "classes": ["red", "green", "blue"]},
        features=[X, Y],
    )
    forth, back = (one["outputs"][0] for one in ensemble.predict({"features": {"x": 1, "y": 2}})["members"])
    assert forth == [back[1], back[0], back[2]]


def test_a_tensor_is_a_feature_like_any_other(tmp_path: Path) -> None:
    image = {"name": "image", "type": "tensor", "shape": [2, 2]}
    ensemble = load(tmp_path, member("sum", "two_by_two"), features=[image])
    assert ensemble.predict({"features": {"image": [[1, 2], [3, 4]]}})["predictions"][0]["value"] == 10.0


def test_a_model_that_cannot_be_loaded_fails_at_each_prediction(tmp_path: Path) -> None:
    path = sources(tmp_path, member("half"), member("odd", "sigmoid"), quorum={"min_members": 1}).path
    (tmp_path / "sigmoid.tflite").write_bytes(b"no model")
    ensemble = Ensemble.load(path)
    output = ensemble.predict({"features": {"x": 0}})
    assert (output["status"], output["members"][1]["error"]["type"]) == ("DEGRADED", "ModelRefused")


def test_a_later_tier_is_invoked_only_for_undecided_rows(tmp_path: Path) -> None:
    ensemble = load(
        tmp_path,
        member("first", "sigmoid", "probability", columns=["x"]),
        member("second", "sigmoid", "probability", columns=["y"], tier=2),
        task={"type": "binary", "classes": ["no", "yes"]},
        features=[X, Y],
        cascade={"min_margin": 0.5},
        quorum={"min_members": 1},
    )
    output = ensemble.predict({"instances": [{"x": 9, "y": 0}, {"x": 0, "y": 3}, {"x": -9, "y": 0}]})
    assert [one["tier"] for one in output["predictions"]] == [1, 2, 1]
    first, second = output["members"]
    assert [len(first["outputs"]), len(second["outputs"])] == [3, 1]
    assert second["outputs"] == pytest.approx([1 / (1 + math.exp(-3))], abs=1e-6)
    alone = ensemble.predict({"features": {"x": 9, "y": 0}})
    assert [one["status"] for one in alone["members"]] == ["ok", "skipped"]


def test_a_quorum_in_a_payload_applies_to_that_payload_only(tmp_path: Path) -> None:
    ensemble = load(tmp_path, member("half"), member("log", "logarithm"))
    payload = {"features": {"x": -1}, "quorum": {"min_members": 1}}
    assert ensemble.predict(payload)["status"] == "DEGRADED"
    with pytest.raises(QuorumNotMet):
        ensemble.predict({"features": {"x": -1}})
    with pytest.raises(InvalidPayload, match="3 is more than the 2 voters"):
        ensemble.predict({**payload, "quorum": {"min_members": 3}})


def test_an_output_is_unchanged_by_a_json_round_trip(tmp_path: Path) -> None:
    ensemble = load(tmp_path, member("half"), quorum={"required": ["half"]}, review={"max_spread": 1})
    output = ensemble.predict({"features": {"x": 1}})
    assert json.loads(json.dumps(output)) == output


def test_a_missed_quorum_raises_an_error(tmp_path: Path) -> None:
    ensemble = load(tmp_path, member("half"), member("log", "logarithm"))
    with pytest.raises(QuorumNotMet, match="1 of 2 voters responded, and the quorum is 2; missing: log"):
        ensemble.predict({"features": {"x": -1}})


def test_an_invalid_payload_raises_an_error(tmp_path: Path) -> None:
    ensemble = load(tmp_path)
    with pytest.raises(InvalidPayload, match=r"\$\.features\.x: true is not a number"):
        ensemble.predict({"features": {"x": True}})
    with pytest.raises(InvalidPayload, match="there is no S3 in process"):
        ensemble.predict({"instances": {"s3": "s3://data/payloads/x.json"}})


def test_another_release_than_the_loaded_one_is_rejected(tmp_path: Path) -> None:
    ensemble = load(tmp_path)
    assert ensemble.predict({"features": {"x": 1}, "release": ensemble.digest[:8]})["release"] == ensemble.digest
    with pytest.raises(ReleaseNotCurrent, match="release 0123456789 is not the loaded one"):
        ensemble.predict({"features": {"x": 1}, "release": "0123456789"})


def test_an_unreadable_manifest_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="cannot be read"):
        Ensemble.load(tmp_path / "none.json")


@pytest.fixture
def _frequent_thread_switches() -> Iterator[None]:
    """Let threads take turns a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 1000)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("_frequent_thread_switches")
def test_threads_share_an_ensemble(tmp_path: Path) -> None:
    ensemble = load(tmp_path, member("a"), member("b"))
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda x: ensemble.predict({"features": {"x": x}}), range(500)))
        tables = list(pool.map(lambda x: ensemble.predict_table({"x": [float(x)] * 3}), range(100)))
    # half_plus_two(x) = x / 2 + 2
    assert [output["predictions"][0]["value"] for output in outputs] == [x / 2 + 2 for x in range(500)]
    assert [table["value"].to_list() for table in tables] == [[x / 2 + 2] * 3 for x in range(100)]


def test_threads_that_load_and_predict_meet_only_types_that_are_known() -> None:
    run_watched(
        """
        import json
        from concurrent.futures import ThreadPoolExecutor
        from stepensemble import Ensemble

        def load(manifest):
            ensemble = Ensemble.load(manifest)
            if manifest == "models/manifest.json":
                features = json.load(open("events/passenger.json"))["features"]
                ensemble.predict({"features": features, "quorum": {"min_members": 1}})
                ensemble.predict({"instances": [features, features]})
                ensemble.predict_table({name: [value] for name, value in features.items()})
            return ensemble

        with ThreadPoolExecutor() as pool:
            assert len(list(pool.map(load, ["models/manifest.json", "models/digits/manifest.json"]))) == 2
        """
    )


def test_the_package_imports_nothing_before_it_is_used() -> None:
    code = "import sys, stepensemble; assert not {'numpy', 'msgspec', 'boto3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = stepensemble.Nothing
