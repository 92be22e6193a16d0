"""Models as users have them, with real TensorFlow: bare numbers, large units, float64, training left on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import X, manifest
from stepensemble import Ensemble
from stepensemble.admission.new_member import Addition, Candidate, plan_addition, write_addition
from stepensemble.core.errors import InvalidManifest

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # inside Keras
]

JobRunner = Callable[..., list[Any]]


def add(folder: Path, file: Path, run: JobRunner, *, fields: Mapping[str, Any] | None = None, **more: Any) -> Addition:
    """Add a model to a manifest without members."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**manifest(**more), "members": []}))
    planned = plan_addition(path, Candidate(file, {"id": "new", **(fields or {})}), run=run)
    write_addition(planned)
    return planned


def predict(folder: Path, *values: float) -> list[Any]:
    """Return the predictions of an ensemble of one regression, for all rows together and for each alone."""
    ensemble = Ensemble.load(folder / "manifest.json")
    together = [one["value"] for one in ensemble.predict({"instances": [{"x": x} for x in values]})["predictions"]]
    assert [ensemble.predict({"features": {"x": x}})["predictions"][0]["value"] for x in values] == together
    return together


@pytest.mark.parametrize("shape", [[None], [1]])
def test_a_model_of_scalars_is_added_and_predicts(
    tf: Any, run: JobRunner, tmp_path: Path, shape: list[int | None]
) -> None:
    # As TensorFlow Serving's half_plus_two for TensorFlow 2 is.
    half = tf.function(lambda x: {"y": x / 2 + 2}).get_concrete_function(x=tf.TensorSpec(shape, name="x"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "half"), signatures=half)
    assert add(tmp_path, tmp_path / "half", run).member.runtime == "litert"
    assert predict(tmp_path, 1, 2, 5) == [2.5, 3.0, 4.5]
    # And where TensorFlow runs it, as LiteRT has no determinant: that of [[x, 0], [0, 1]] is x.
    matrix = tf.function(lambda x: {"y": tf.linalg.det(tf.linalg.diag(tf.stack([x, tf.ones_like(x)], axis=1))) / 2 + 2})
    kept = matrix.get_concrete_function(x=tf.TensorSpec(shape, name="x"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "kept"), signatures=kept)
    assert add(tmp_path, tmp_path / "kept", run).member.runtime == "tensorflow"
    assert predict(tmp_path, 1, 2, 5) == pytest.approx([2.5, 3.0, 4.5], rel=1e-6)


@pytest.mark.usefixtures("tf")
def test_a_regression_in_large_units_becomes_litert(run: JobRunner, tmp_path: Path) -> None:

    import keras

    names = "abcdefgh"
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((len(names),)),
            layers.Dense(64, activation="relu"),
            layers.Dense(1),
            layers.Rescaling(100_000, 300_000),
        ]
    )
    model.save(tmp_path / "prices.keras")
    planned = add(tmp_path, tmp_path / "prices.keras", run, features=[{**X, "name": name} for name in names])
    assert (planned.member.runtime, planned.converted.reason) == ("litert", None)
    assert planned.converted.parity is not None
    assert planned.converted.parity.deviation < 1e-6


def test_a_model_of_float64_gets_all_digits(tf: Any, run: JobRunner, tmp_path: Path) -> None:
    less = tf.function(lambda x: {"y": x - 2.0**24}).get_concrete_function(
        x=tf.TensorSpec([None, 1], tf.float64, name="x")
    )
    tf.saved_model.save(tf.Module(), str(tmp_path / "less"), signatures=less)
    planned = add(tmp_path, tmp_path / "less", run)
    assert planned.inferred["features"] == '"x" in float64 from now on, as the model needs more digits'
    assert json.loads((tmp_path / "manifest.json").read_text())["features"] == [{**X, "dtype": "float64"}]
    assert predict(tmp_path, 2**24 + 1, 2**24 - 0.25) == [1.0, -0.25]


@pytest.mark.usefixtures("tf")
def test_a_layer_left_in_training_mode_is_rejected(run: JobRunner, tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((1,), name="x")
    normalized = keras.layers.BatchNormalization()(inputs, training=True)
    keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(normalized)).save(tmp_path / "normalized.keras")
    dropped = keras.layers.Dropout(0.5)(keras.layers.Dense(16)(inputs), training=True)
    keras.Model(inputs, keras.layers.Dense(1)(dropped)).save(tmp_path / "dropped.keras")
    with pytest.raises(
        InvalidManifest, match=r"its outputs for the same rows differ: alone, row 0 is .*training=False"
    ):
        add(tmp_path, tmp_path / "normalized.keras", run)
    with pytest.raises(InvalidManifest, match=r"its outputs for the same rows differ: .*again, row 0 is "):
        add(tmp_path, tmp_path / "dropped.keras", run)
    planned = add(tmp_path, tmp_path / "dropped.keras", run, fields={"varies": True})
    assert [warning.path for warning in planned.report.warnings] == ["$.members[0].varies"]
    assert np.isfinite(
        Ensemble.load(tmp_path / "manifest.json").predict({"features": {"x": 1}})["predictions"][0]["value"]
    )
