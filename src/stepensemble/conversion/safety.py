"""Finds the code that a Keras file could run.

A Keras file describes layers by the names of classes, and Keras calls whatever has these names. Here the file is read
as data, before Keras reads it. Each finding is a sentence; no finding means that the file only computes. SavedModels
are checked by `runtimes.graph_checks`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stepensemble.core.errors import FileDamaged
from stepensemble.core.problems import show
from stepensemble.runtimes.graph_checks import raise_if_unsafe

KERAS_MODULES = frozenset(
    {
        "keras",
        "keras.activations",
        "keras.constraints",
        "keras.dtype_policies",
        "keras.initializers",
        "keras.layers",
        "keras.losses",
        "keras.metrics",
        "keras.models",
        "keras.ops",
        "keras.optimizers",
        "keras.optimizers.schedules",
        "keras.quantizers",
        "keras.random",
        "keras.regularizers",
    }
)
"""The modules of a model's parts: everything in them computes. Not `keras.utils` (it fetches files), not `keras.saving`
and `keras.config` (they load files, and switch safety off), not `keras.datasets`, `keras.applications` (they fetch),
`keras.callbacks` (they write)."""

KERAS_INSIDE = re.compile(
    r"keras\.src\.(activations|constraints|dtype_policies|initializers|layers|losses|metrics|models|ops|optimizers|"
    r"quantizers|random|regularizers)(\.\w+)*"
)
"""The same families, by the names under which classes without a public name are saved."""

KERAS_CODE: Mapping[str, str] = {
    "Lambda": "a Lambda layer, which runs Python code from the file",
    "__lambda__": "a Python function from the file",
    "TFSMLayer": "a TFSMLayer, which runs a SavedModel from a path",
    "TorchModuleWrapper": "a TorchModuleWrapper, which runs a pickle",
    "JaxLayer": "a JaxLayer, which calls a custom function",
    "FlaxLayer": "a FlaxLayer, which calls a custom module",
}

ACTIVATIONS = frozenset(
    {
        "celu",
        "elu",
        "exponential",
        "gelu",
        "glu",
        "hard_shrink",
        "hard_sigmoid",
        "hard_silu",
        "hard_swish",
        "hard_tanh",
        "leaky_relu",
        "linear",
        "log_sigmoid",
        "log_softmax",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "soft_shrink",
        "softmax",
        "softplus",
        "softsign",
        "sparse_plus",
        "sparsemax",
        "squareplus",
        "swish",
        "tanh",
        "tanh_shrink",
        "threshold",
    }
)
"""Functions of Keras that Keras may save under the module `builtins`."""

PLAIN = frozenset(
    {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__typespec__"}
)
"""Plain values that Keras writes with a class name."""


def check_keras_config(text: str | bytes, name: str) -> None:
    """Reject a Keras model's configuration that could run more than Keras' own layers.

    How the model was compiled is not checked, because it is not loaded either.

    Args:
        text: JSON: `config.json` of a `.keras` file, the attribute `model_config` of an `.h5`, an architecture.
        name: of the file, for errors.

    Raises:
        FileDamaged: it is not JSON.
        FileUnsafe: with every reason.
    """
    try:
        config = json.loads(text)  # like Keras: of a duplicate key, the last one counts
    except (ValueError, RecursionError):
        raise FileDamaged(f"the configuration in {show(name)} is not JSON: the file is damaged") from None
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if key != "compile_config"}
    raise_if_unsafe(sorted(set(find_keras_code(config))), show(name))


def find_keras_code(config: Any) -> Iterator[str]:
    """Yield every part of a configuration that is not known to be a layer or another part of Keras that computes."""
    waiting = [config]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            waiting += found.values()
            if "class_name" in found:
                yield from _check_object(found)


def _check_object(found: Mapping[str, Any]) -> Iterator[str]:
    kind, module, config = found["class_name"], found.get("module", ""), found.get("config")
    if not isinstance(kind, str) or not isinstance(module, str | None):
        yield f"a class without a name: {show(kind)}"
        return
    if kind in KERAS_CODE:
        yield KERAS_CODE[kind]
    elif kind == "__typespec__":
        if not str(module).startswith("tensorflow.python."):
            yield f"a type of another module: {show(module)}"
    elif kind in PLAIN:
        pass
    elif kind == "function":
        known = isinstance(config, str) and (config in ACTIVATIONS if module == "builtins" else module in KERAS_MODULES)
        if not known:
            yield f"a custom function, {show(config)} of {_name_module(module)}"
    elif (module and not _is_keras_module(module)) or module is None or not re.fullmatch(r"_*[A-Z]\w*", kind):
        yield f"a custom class, {show(kind)} of {_name_module(module)}"
    if isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
        yield f"a vocabulary that is read from a file, {show(config['vocabulary'])}"


def _is_keras_module(module: str) -> bool:
    return module in KERAS_MODULES or KERAS_INSIDE.fullmatch(module) is not None


def _name_module(module: str | None) -> str:
    return f"the module {show(module)}" if module else "no module of Keras"


def check_hdf5(file: Any, name: str) -> None:
    """Reject an open HDF5 file (`h5py.File`) whose data is in other files.

    Raises:
        FileUnsafe: with every reason.
    """
    raise_if_unsafe(sorted(set(_find_external_data(file))), show(name))


def _find_external_data(file: Any) -> Iterator[str]:
    import h5py  # comes with TensorFlow

    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:  # a group may contain itself
            continue
        seen.add(address)
        for key in group:
            if isinstance(group.get(key, getlink=True), h5py.ExternalLink | h5py.SoftLink):
                yield f"a link, {show(key)}"  # a link within the file has no use in a model, and may form a cycle
                continue
            found = group.get(key)
            if isinstance(found, h5py.Group):
                waiting.append(found)
            elif isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
                yield f"data in another file, {show(key)}"
