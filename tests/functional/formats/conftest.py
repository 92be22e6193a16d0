"""Model files of every kind, made once with real TensorFlow, each with outputs that can be computed by hand."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from in_process import run_in_process
from stepensemble.conversion import sandbox
from stepensemble.runtimes.tensorflow import import_tensorflow

KERNEL = np.array([[1, -1, 0], [0.5, 0, 2]], dtype=np.float32)
BIAS = np.array([0, 0.25, -0.5], dtype=np.float32)
"""Of the Keras models: softmax(x KERNEL + BIAS)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    installed = importlib.util.find_spec("tensorflow") is not None
    for item in items:
        if item.get_closest_marker("tensorflow") is not None and not installed:
            item.add_marker(pytest.mark.skip(reason="TensorFlow is not installed; make tensorflow installs it"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Convert and check models in this process, which has TensorFlow in memory already."""
    monkeypatch.setattr(sandbox, "run_in_child", run_in_process)
    return run_in_process


@pytest.fixture(scope="session")
def tf() -> Any:
    return import_tensorflow()


@pytest.fixture(scope="session")
def made(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them."""
    folder = tmp_path_factory.mktemp("models")
    make_saved_models(tf, folder)
    make_models_that_run_code(tf, folder)
    make_models_that_open_files(tf, folder)
    make_version_1_models(tf, folder)
    make_keras_models(folder)
    return folder


def save(tf: Any, folder: Path, *, parts: Any = None, **functions: tuple[Callable[..., Any], dict[str, Any]]) -> None:
    """Save functions as the signatures of a SavedModel; each with its inputs, name to shape or TensorSpec."""
    module = tf.Module()
    module.parts = parts
    signatures = {}
    for name, (function, inputs) in functions.items():
        specs = {
            key: tf.TensorSpec(spec, tf.float32, name=key) if isinstance(spec, list) else spec
            for key, spec in inputs.items()
        }
        signatures[name] = tf.function(function).get_concrete_function(**specs)
    tf.saved_model.save(module, str(folder), signatures=signatures)


def make_saved_models(tf: Any, folder: Path) -> None:
    column = {"x": [None, 1]}
    two = tf.Variable(2.0)
    half = (lambda x: {"y": x / 2 + two}, column)
    double = (lambda x: {"y": x * 2}, column)
    save(tf, folder / "half", parts=two, serving_default=half)
    save(tf, folder / "signatures", parts=two, half=half, double=double)
    save(tf, folder / "default", parts=two, serving_default=half, double=double)
    save(tf, folder / "fixed_one", parts=two, serving_default=(half[0], {"x": [1, 1]}))
    save(tf, folder / "fixed_two", parts=two, serving_default=(half[0], {"x": [2, 1]}))
    save(
        tf,
        folder / "named",
        serving_default=(
            lambda a, b: {"total": a + tf.reduce_sum(b, axis=1, keepdims=True), "first": tf.identity(a)},
            {"a": [None, 1], "b": [None, 2]},
        ),
    )
    save(tf, folder / "determinant", serving_default=(lambda x: {"y": tf.linalg.det(x)}, {"x": [None, 2, 2]}))
    save(tf, folder / "random", serving_default=(lambda x: {"y": x + tf.random.uniform(tf.shape(x))}, column))
    labels = tf.constant(["no", "yés"])
    save(
        tf,
        folder / "text",
        serving_default=(lambda x: {"label": tf.gather(labels, tf.cast(x[:, 0] > 0, tf.int32))}, column),
    )
    save(
        tf,
        folder / "bytes",
        serving_default=(lambda x: {"y": tf.cast(x, tf.float32) / 2}, {"x": tf.TensorSpec([None, 1], tf.uint8)}),
    )
    save(
        tf,
        folder / "doubles",
        serving_default=(lambda x: {"y": x / 2}, {"x": tf.TensorSpec([None, 1], tf.float64)}),
    )
    save(tf, folder / "one_number", serving_default=(lambda x: {"y": x / 2}, {"x": []}))
    save(tf, folder / "no_signature")
    words = folder / "words.txt"
    words.write_text("no\nyes\n")
    table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(str(words), tf.int64, -1, tf.string, 0), default_value="?"
    )
    save(
        tf,
        folder / "table",
        parts=table,
        serving_default=(lambda x: {"y": table.lookup(tf.cast(x[:, 0], tf.int64))}, column),
    )


def make_models_that_run_code(tf: Any, folder: Path) -> None:
    column = {"x": [None, 1]}

    def python(x: Any) -> Any:
        return {"y": tf.ensure_shape(tf.numpy_function(lambda value: value * 2, [x], tf.float32), [None, 1])}

    def eager(x: Any) -> Any:
        return {"y": tf.ensure_shape(tf.py_function(lambda value: value * 2, [x], tf.float32), [None, 1])}

    for function in (python, eager):
        save(tf, folder / function.__name__, serving_default=(function, column))


def make_models_that_open_files(tf: Any, folder: Path) -> None:
    column = {"x": [None, 1]}

    def reads(x: Any) -> Any:
        return {"y": x + tf.cast(tf.strings.length(tf.io.read_file("/nowhere/at/all")), tf.float32)}

    def writes(x: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file("/nowhere/at/all", "text")]):
            return {"y": tf.identity(x)}

    def prints(x: Any) -> Any:
        tf.print("text", output_stream="file:///nowhere/at/all")
        return {"y": tf.identity(x)}

    def branches(x: Any) -> Any:
        return {"y": tf.cond(tf.reduce_sum(x) > 1e9, lambda: reads(x)["y"], lambda: x)}

    def saves(x: Any) -> Any:
        saved = tf.raw_ops.SaveV2(prefix="/nowhere/at/all", tensor_names=["x"], shape_and_slices=[""], tensors=[x])
        with tf.control_dependencies([saved]):
            return {"y": tf.identity(x)}

    def restores(x: Any) -> Any:
        read = tf.raw_ops.RestoreV2(prefix="/nowhere", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])
        return {"y": x + read[0]}

    def looks_up(x: Any) -> Any:
        table = tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.string)
        filled = tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename="/etc/passwd", key_index=-1, value_index=-2
        )
        with tf.control_dependencies([filled]):
            found = tf.raw_ops.LookupTableFindV2(table_handle=table, keys=tf.cast(x[:, 0], tf.int64), default_value="")
        return {"y": found}

    for function in (reads, writes, prints, branches, saves, restores, looks_up):
        save(tf, folder / function.__name__, serving_default=(function, column))


def make_version_1_models(tf: Any, folder: Path) -> None:
    v1 = tf.compat.v1
    predict = v1.saved_model.predict_signature_def
    # Variables as they were before they became resources.
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        half = v1.get_variable("half", initializer=[[0.5]], use_resource=False)
        y = x @ half + 2.0
        session.run(half.initializer)
        v1.saved_model.simple_save(session, str(folder / "version_1"), {"x": x}, {"y": y})
    # A second signature forgets a placeholder: TensorFlow 2 rejects all of them, version 1 runs the first.
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        y = x / 2.0 + 2.0
        forgotten = v1.placeholder(tf.float32, [], name="forgotten")
        builder = v1.saved_model.Builder(str(folder / "version_1_only"))
        signatures = {"serving_default": predict({"x": x}, {"y": y}), "other": predict({"x": x}, {"y": y * forgotten})}
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


def make_keras_models(folder: Path) -> None:
    import keras

    softmax = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(3, activation="softmax", name="y")])
    softmax.set_weights([KERNEL, BIAS])
    softmax.save(folder / "softmax.keras")
    softmax.save(folder / "softmax.h5")
    softmax.save_weights(folder / "softmax.weights.h5")
    (folder / "softmax.json").write_text(softmax.to_json())

    write_keras_2(folder / "keras_2.h5")

    image = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(2, 3, use_bias=False, kernel_initializer="ones"),
            keras.layers.GlobalMaxPooling2D(),
        ]
    )
    image.save(folder / "image.keras")

    matrix = keras.Input((2, 2), name="matrix")
    keras.Model(matrix, keras.ops.det(matrix)).save(folder / "determinant.keras")

    inputs = keras.Input((1,), name="x")
    keras.Model(inputs, keras.layers.Lambda(lambda x: x / 2 + 2)(inputs)).save(folder / "lambda.keras")
    keras.Model(inputs, keras.layers.Lambda(lambda x: x / 2 + 2)(inputs)).save(folder / "lambda.h5")


def write_keras_2(path: Path) -> None:
    """Write the same model as Keras 2 wrote it: other keys in its configuration, weights by the names of layers."""
    import h5py

    dense = {
        "name": "y",
        "trainable": True,
        "dtype": "float32",
        "units": 3,
        "activation": "softmax",
        "use_bias": True,
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
        "bias_initializer": {"class_name": "Zeros", "config": {}},
    }
    entrance = {"batch_input_shape": [None, 2], "dtype": "float32", "sparse": False, "ragged": False, "name": "x"}
    layers = [{"class_name": "InputLayer", "config": entrance}, {"class_name": "Dense", "config": dense}]
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.9.0"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(
            {"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}
        )
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"y"]
        weights.attrs["keras_version"] = "2.9.0"
        weights.attrs["backend"] = "tensorflow"
        layer = weights.create_group("y")
        layer.attrs["weight_names"] = [b"y/kernel:0", b"y/bias:0"]
        layer["y/kernel:0"], layer["y/bias:0"] = KERNEL, BIAS
