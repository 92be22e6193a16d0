"""Keras configurations pass if they only compute, and are rejected with the reason otherwise; no Keras is needed."""

from __future__ import annotations

import base64
import json
import marshal
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stepensemble.conversion.safety import check_keras_config, find_keras_code
from stepensemble.core.errors import FileDamaged, FileUnsafe


def part(class_name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    """Return an object as Keras 3 writes it."""
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def model(*layers: Any, **more: Any) -> dict[str, Any]:
    """Return a model as Keras 3 writes it."""
    return part("Sequential", "keras", name="sequential", layers=list(layers)) | more


DENSE = part(
    "Dense",
    units=3,
    activation="relu",
    dtype=part("DTypePolicy", "keras", name="float32"),
    kernel_initializer=part("GlorotUniform", "keras.initializers", seed=None),
    kernel_regularizer=part("L2", "keras.regularizers", l2=0.01),
)
CODE = base64.b64encode(marshal.dumps((lambda x: x + 1).__code__)).decode()


def function(name: Any, module: str | None) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


@pytest.mark.parametrize(
    "layer",
    [
        DENSE,
        part("Add", "keras.src.ops.numpy"),
        part("Functional", "keras.src.models.functional", layers=[DENSE]),
        part("Bidirectional", layer=part("LSTM", units=2)),
        part("Activation", activation=function("relu", "builtins")),
        part("Activation", activation=function("softmax", "keras.activations")),
        part("SeedGenerator", "keras.random", seed=1),
        part("Normalization", mean={"class_name": "__numpy__", "config": {"value": [1.0], "dtype": "float32"}}),
        part("StringLookup", vocabulary=["no", "yes"]),
        {"class_name": "Dense", "config": {"units": 1}},  # as Keras 2 writes it
        {"class_name": "__keras_tensor__", "config": {"shape": [None, 1], "dtype": "float32"}},
    ],
    ids=lambda layer: layer["class_name"],
)
def test_layers_of_keras_pass(layer: dict[str, Any]) -> None:
    check_keras_config(json.dumps(model(DENSE, layer)), "model.keras")


def test_how_a_model_was_compiled_does_not_matter() -> None:
    compiled = model(DENSE, compile_config={"loss": function("my_loss", "my_package")})
    check_keras_config(json.dumps(compiled), "model.keras")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (part("Lambda", function={"class_name": "__lambda__", "config": {"code": CODE}}), "Lambda layer, which runs"),
        ({"class_name": "Lambda", "config": {"function": [CODE, None, None], "function_type": "lambda"}}, "Lambda"),
        ({"class_name": "__lambda__", "config": {"value": CODE}}, "a Python function from the file"),
        (part("Activation", activation={"class_name": "__lambda__", "config": {"value": CODE}}), "Python function"),
        (part("Mine", "my_package.layers"), 'a custom class, "Mine" of the module "my_package.layers"'),
        (part("Mine", None), 'a custom class, "Mine" of no module of Keras'),
        (part("my_package>Mine"), 'a custom class, "my_package>Mine"'),
        (part("system", "os"), 'a custom class, "system" of the module "os"'),
        (part("Popen", "subprocess"), '"Popen" of the module "subprocess"'),
        (part("get_file", "keras.utils"), '"get_file" of the module "keras.utils"'),
        (part("Utils", "keras.src.utils.file_utils"), '"keras.src.utils.file_utils"'),
        (part("Dense", "kerasevil.layers"), '"kerasevil.layers"'),
        (part("Dense", "keras.layers.__class__"), '"keras.layers.__class__"'),
        (part("dense"), 'a custom class, "dense"'),
        (part("Activation", activation=function("eval", "builtins")), 'a custom function, "eval"'),
        (part("Activation", activation=function("system", "os")), '"system" of the module "os"'),
        (part("Activation", activation=function(["system"], "keras.activations")), "a custom function"),
        (function("get_file", "keras.utils"), 'a custom function, "get_file" of the module "keras.utils"'),
        (part("TFSMLayer", filepath="/tmp/other"), "a TFSMLayer, which runs a SavedModel from a path"),  # noqa: S108 - named, not used
        (part("TorchModuleWrapper", module=CODE), "a TorchModuleWrapper, which runs a pickle"),
        (part("JaxLayer"), "a JaxLayer"),
        (part("FlaxLayer"), "a FlaxLayer"),
        (part("StringLookup", vocabulary="/etc/passwd"), 'a vocabulary that is read from a file, "/etc/passwd"'),
        (part("TextVectorization", vocabulary="http://somewhere"), "a vocabulary that is read from a file"),
        ({"class_name": "__typespec__", "module": "os", "config": []}, 'a type of another module: "os"'),
        ({"class_name": "__made_up__", "config": {}}, "a custom class"),
        ({"class_name": ["Dense"], "config": {}}, "a class without a name"),
    ],
)
@pytest.mark.parametrize("depth", [0, 3])
def test_code_is_rejected_at_any_depth(layer: dict[str, Any], reason: str, depth: int) -> None:
    for _ in range(depth):
        layer = part("TimeDistributed", layer=[{"inner": layer}])
    with pytest.raises(FileUnsafe) as raised:
        check_keras_config(json.dumps(model(DENSE, layer)), "model.keras")
    message = str(raised.value)
    assert message.startswith('"model.keras" is rejected, since loading it could do more than compute. It has ')
    assert reason in message
    assert message.endswith("If you know who made it and what it does, accept it with ensemble add --trust")


def test_code_in_the_compile_options_of_an_inner_model_is_found() -> None:
    # Keras compiles inner models even if the outer one is loaded without compiling.
    inner = model(DENSE, compile_config={"loss": function("system", "os")})
    assert list(find_keras_code(model(inner))) == ['a custom function, "system" of the module "os"']


def test_every_reason_is_named_once() -> None:
    layers = [part("Lambda"), part("Lambda"), part("Mine", "mine")]
    with pytest.raises(FileUnsafe, match=r"It has a Lambda layer[^;]*; a custom class[^;]*\. If you"):
        check_keras_config(json.dumps(model(*layers)), "model.keras")


def test_the_last_of_two_equal_keys_counts_as_in_keras() -> None:
    text = json.dumps(model(DENSE)).replace('"class_name": "Dense"', '"class_name": "Dense", "class_name": "Lambda"')
    with pytest.raises(FileUnsafe, match="Lambda layer"):
        check_keras_config(text, "model.keras")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", "[" * 100_000])
def test_invalid_json_is_damaged(text: bytes | str) -> None:
    with pytest.raises(FileDamaged, match="is not JSON: the file is damaged"):
        check_keras_config(text, "model.keras")


WORDS = st.sampled_from(
    ["Dense", "Lambda", "function", "builtins", "keras.layers", "relu", "__lambda__", "__typespec__", "\ud800", ""]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class_name", "module", "config", "vocabulary", "layers"]), inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_any_json_passes_or_is_rejected_with_a_printable_message(value: Any) -> None:
    try:
        check_keras_config(json.dumps(value), "model.keras")
    except FileUnsafe as error:
        str(error).encode()


@pytest.mark.parametrize("depth", [100, 400])
def test_a_deep_configuration_passes_or_is_rejected(depth: int) -> None:
    deep: Any = {"class_name": "function", "config": []}
    for _ in range(depth):
        deep = {"class_name": "function", "config": [deep]}
    with pytest.raises((FileUnsafe, FileDamaged)):
        check_keras_config(json.dumps(deep), "model.keras")
