"""Translates architectures that Keras 2 wrote to the format of Keras 3, which reads only some of them unchanged.

Keras 2 wrote a layer's class without its module, used arguments that no longer exist, and described the model's input
in the first layer. Only names and arguments are changed; anything that Keras 3 computes differently is rejected.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from stepensemble.core.errors import ConversionFailed
from stepensemble.core.problems import show

MODULES = ("layers", "initializers", "regularizers", "constraints")
"""The modules of Keras 3 with the classes that an architecture names."""

MODELS = {"Functional": "Model", "Model": "Model", "Sequential": "Sequential"}
"""Models by their class in Keras 2, each with its public name in Keras 3."""

WITHOUT_EFFECT = frozenset({"implementation", "input_length", "trainable", "groups", "batch_input_shape"})
"""Arguments that Keras 3 removed from layers, and that change no output: how a recurrent layer is computed, the length
of an embedding's input (which the input has anyway), whether a layer without weights is trained, the one group of a
depthwise convolution. Arguments that are false or null change no output either."""

CHANGED = {"hard_sigmoid": "0.2 x + 0.5 in Keras 2 and x / 6 + 0.5 in Keras 3"}
"""Activations with the same name and another meaning."""


def is_keras_2_config(config: Any, version: str | None) -> bool:
    """Return whether an architecture was written before Keras 3.

    Args:
        config: of the model.
        version: of Keras, from the file around it; None if the file does not have it.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        return False
    written_by = config.get("keras_version", version)
    return not written_by.startswith("3") if isinstance(written_by, str) else "module" not in config


def translate_config(config: Any, keras: Any) -> Any:
    """Return an architecture of Keras 2, or a part of it, as Keras 3 would have written it.

    Args:
        config: as it was read.
        keras: the module.

    Raises:
        ConversionFailed: a part of it has another meaning in Keras 3.
    """
    if isinstance(config, list):
        return [translate_config(one, keras) for one in config]
    if not isinstance(config, dict):
        return config
    if config.get("type") == "ndarray" and set(config) == {"type", "value"}:
        return config["value"]  # a number that was a NumPy scalar
    for key, value in config.items():
        named = key.endswith("activation") or (key == "config" and config.get("class_name") == "function")
        if named and isinstance(value, str) and value in CHANGED:
            raise ConversionFailed(f"its activation {show(value)} is {CHANGED[value]}, so its outputs would differ")
    name, inner = config.get("class_name"), config.get("config")
    if not isinstance(name, str) or "config" not in config:
        return {key: translate_config(value, keras) for key, value in config.items()}
    more = {key: config[key] for key in ("name", "inbound_nodes") if key in config}
    if name in MODELS:
        inner = _translate_model(name, inner)
        return _write("keras", MODELS[name], translate_config(inner, keras), more)
    for module in MODULES:
        kind = getattr(getattr(keras, module), name, None)
        if inspect.isclass(kind) and isinstance(inner, dict):
            inner = translate_config(inner, keras)
            return _write(f"keras.{module}", name, _fit_arguments(name, kind, inner), more)
    return {key: translate_config(value, keras) for key, value in config.items()}


def _write(module: str, name: str, config: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None, **more}


def _translate_model(name: str, config: Any) -> Any:
    """Return a model's configuration with an input layer, which Keras 2 wrote into the first layer."""
    if name != "Sequential":
        return config
    if isinstance(config, list):  # until Keras 2.2.3
        config = {"name": "sequential", "layers": config}
    layers = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(layers, list) or not layers or not isinstance(layers[0], dict):
        return config
    first = layers[0].get("config")
    if layers[0].get("class_name") == "InputLayer" or not isinstance(first, dict):
        return config
    shape = first.get("batch_input_shape")
    if shape is None:
        return config
    dtype = first.get("dtype") if isinstance(first.get("dtype"), str) else "float32"
    input_layer = {"batch_shape": shape, "dtype": dtype, "name": f"{first.get('name', 'first')}_input"}
    return {**config, "layers": [{"class_name": "InputLayer", "config": input_layer}, *layers]}


def _fit_arguments(name: str, kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's arguments without those that its class no longer has and that change nothing."""
    config = dict(config)
    if name == "InputLayer" and "batch_input_shape" in config:
        config["batch_shape"] = config.pop("batch_input_shape")
    if name == "GRU":
        config.setdefault("reset_after", False)  # the default in Keras 2
    axis = config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    known = _list_arguments(kind)
    return {
        key: value
        for key, value in config.items()
        if key in known or not (value is None or value is False or key in WITHOUT_EFFECT)
    }


def _list_arguments(kind: type) -> set[str]:
    """Return the names of the arguments that a class takes, with those that it passes on to its base classes."""
    known: set[str] = set()
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        known |= {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return known
