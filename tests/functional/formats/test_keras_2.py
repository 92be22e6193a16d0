"""Models of Keras 2, with architectures as it wrote them.

`data/keras_2` holds what Keras 2.21 (the package tf_keras) wrote by `model.to_json()`, and its models' outputs for
the rows beside it, once their weights were set to the numbers of `write_weights`. Older architectures are written here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from builders import ROOT
from stepensemble.conversion.converter import ConversionOptions, Converted, convert
from stepensemble.conversion.keras_2 import is_keras_2_config, translate_config
from stepensemble.core.errors import ConversionFailed, FileUnsafe
from stepensemble.runtimes import load_model

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # inside Keras
]

JobRunner = Callable[..., list[Any]]

VERSION_2_2_4: dict[str, Any] = {
    "class_name": "Sequential",
    "config": {
        "name": "sequential_1",
        "layers": [
            {
                "class_name": "Dense",
                "config": {
                    "name": "dense_1",
                    "trainable": True,
                    "batch_input_shape": [None, 2],
                    "dtype": "float32",
                    "units": 3,
                    "activation": "linear",
                    "use_bias": True,
                    "kernel_initializer": {
                        "class_name": "VarianceScaling",
                        "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None},
                    },
                    "bias_initializer": {"class_name": "Zeros", "config": {}},
                    "kernel_regularizer": None,
                    "bias_regularizer": None,
                    "activity_regularizer": None,
                    "kernel_constraint": None,
                    "bias_constraint": None,
                },
            },
            {
                "class_name": "ReLU",
                "config": {
                    "name": "re_lu_1",
                    "trainable": True,
                    "max_value": {"type": "ndarray", "value": 6},
                    "negative_slope": 0.0,
                    "threshold": 0.0,
                },
            },
        ],
    },
    "keras_version": "2.2.4",
    "backend": "tensorflow",
}
VERSION_2_1_6 = {**VERSION_2_2_4, "config": VERSION_2_2_4["config"]["layers"], "keras_version": "2.1.6"}
KERNEL = np.array([[1, -1, 0], [0.5, 0, 2]], dtype=np.float32)
BIAS = np.array([0, 0.25, -0.5], dtype=np.float32)


def write_weights(group: Any, shapes: Mapping[str, list[list[int]]]) -> None:
    """Write weights as Keras 2 did: abs(sin(1)), abs(sin(2)) …, less 0.3 unless the weight may be a variance."""
    count = 0
    group.attrs["layer_names"] = [name.encode() for name in shapes]
    group.attrs["keras_version"], group.attrs["backend"] = "2.9.0", "tensorflow"
    for name, weights in shapes.items():
        layer = group.create_group(name)
        names = [f"{name}/weight_{index}:0" for index in range(len(weights))]
        layer.attrs["weight_names"] = [one.encode() for one in names]
        for one, shape in zip(names, weights, strict=True):
            numbers = np.abs(np.sin(np.arange(count, count + np.prod(shape, dtype=int)) + 1)).reshape(shape)
            layer[one] = (numbers - (0 if name == "norm" else 0.3)).astype(np.float32)
            count += numbers.size


def predict(converted: Converted, inputs: Any) -> Any:
    return load_model(converted.runtime, converted.artifact, converted.signature.name).predict(inputs)


@pytest.mark.parametrize("name", ["functional", "sequential"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_model_of_keras_2_has_the_same_outputs(run: JobRunner, tmp_path: Path, name: str, whole: bool) -> None:
    import h5py

    wrote = json.loads((ROOT / "tests" / "data" / "keras_2" / f"{name}.json").read_text())
    architecture = tmp_path / "model.json"
    architecture.write_text(json.dumps(wrote["architecture"]))
    with h5py.File(tmp_path / "model.h5", "w") as file:
        if whole:
            file.attrs["model_config"], file.attrs["keras_version"] = architecture.read_text(), "2.21.0"
        write_weights(file.create_group("model_weights") if whole else file, wrote["weights"])
    converted = convert(tmp_path / "model.h5", ConversionOptions(architecture=None if whole else architecture), run=run)
    rows = {key: np.array(values, dtype=np.float32) for key, values in wrote["rows"].items()}
    outputs = predict(converted, rows if len(rows) > 1 else next(iter(rows.values())))
    np.testing.assert_allclose(outputs, wrote["answers"], atol=2e-5)  # they are written with five places


@pytest.mark.parametrize("architecture", [VERSION_2_2_4, VERSION_2_1_6])
def test_an_architecture_without_an_input_layer_is_read(
    run: JobRunner, tmp_path: Path, architecture: Mapping[str, Any]
) -> None:
    import h5py

    (tmp_path / "model.json").write_text(json.dumps(architecture))
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense_1", b"re_lu_1"]
        layer = file.create_group("dense_1")
        layer.attrs["weight_names"] = [b"dense_1/kernel:0", b"dense_1/bias:0"]
        layer["dense_1/kernel:0"], layer["dense_1/bias:0"] = KERNEL, BIAS
        file.create_group("re_lu_1").attrs["weight_names"] = []
    converted = convert(tmp_path / "weights.h5", ConversionOptions(architecture=tmp_path / "model.json"), run=run)
    rows = np.array([[0, 0], [4, 3]], dtype=np.float32)
    np.testing.assert_allclose(predict(converted, rows), np.clip(rows @ KERNEL + BIAS, 0, 6), rtol=1e-6)


def test_a_changed_meaning_in_keras_3_is_rejected(run: JobRunner, tmp_path: Path) -> None:
    import h5py

    (tmp_path / "model.json").write_text(json.dumps(VERSION_2_2_4).replace('"linear"', '"hard_sigmoid"'))
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = []
    with pytest.raises(ConversionFailed, match=r'by Keras 2, and its activation "hard_sigmoid" is .* export it with'):
        convert(tmp_path / "weights.h5", ConversionOptions(architecture=tmp_path / "model.json"), run=run)


def test_code_in_an_architecture_of_keras_2_is_rejected(run: JobRunner, tmp_path: Path) -> None:
    import h5py

    (tmp_path / "model.json").write_text(json.dumps(VERSION_2_2_4).replace('"ReLU"', '"Lambda"'))
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = []
    with pytest.raises(FileUnsafe, match="a Lambda layer"):
        convert(tmp_path / "weights.h5", ConversionOptions(architecture=tmp_path / "model.json"), run=run)


NAMES = st.sampled_from(["Sequential", "Functional", "Dense", "GRU", "InputLayer", "Zeros", "function", "__doc__"])
PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.just("hard_sigmoid"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class_name", "config", "layers", "axis", "activation", "dtype"]), inner)
        | st.fixed_dictionaries({"class_name": NAMES, "config": inner})
    ),
    max_leaves=15,
)


@settings(max_examples=300)
@given(PARTS)
def test_any_json_is_translated_or_rejected(config: Any) -> None:
    import keras

    is_keras_2_config(config, None)
    with suppress(ConversionFailed):
        json.dumps(translate_config(config, keras))
