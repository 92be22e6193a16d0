"""TensorFlow, the runtime for models that LiteRT cannot run: seconds to import, and an extra to install.

An artifact is a SavedModel in a zip (`archives.write_archive`), with `saved_model.pb` at its top.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stepensemble.core.arrays import Array
from stepensemble.core.errors import InputMismatch, ModelFileError, ModelRefused, TensorFlowMissing
from stepensemble.core.problems import show
from stepensemble.runtimes.archives import extract_archive, is_saved_model_file, list_archive
from stepensemble.runtimes.graph_checks import check_graphs
from stepensemble.runtimes.model import STRING, Model, Signature, Tensor, describe, select_signature

SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # oneDNN's rounding depends on the processor, and it logs that
}
"""Environment variables that TensorFlow reads when it is imported; those that are set already are kept."""

HEADINGS = ("Graph execution error", "Detected at node", "<stack traces", "Exception encountered:")
"""The beginnings of lines that only report where an error is."""

SERVE = "serve"
"""The tag of the graph that is served."""


def import_tensorflow() -> Any:
    """Import TensorFlow, for the CPU only, with one thread and without logs.

    Raises:
        TensorFlowMissing: it is not installed.
    """
    if "tensorflow" in sys.modules and sys.modules["tensorflow"] is not None:
        return sys.modules["tensorflow"]
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        with _quiet():
            import tensorflow as tf
    except ImportError as error:
        raise TensorFlowMissing(
            f"this needs TensorFlow, which cannot be imported ({error}): pip install 'stepensemble[tensorflow]'"
        ) from None
    tf.get_logger().setLevel("ERROR")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what libraries write to standard error during their import, before a log level can be set."""
    sys.stderr.flush()
    original = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.close(null)


def load_tensorflow(artifact: bytes, signature: str | None = None, *, trusted: bool = False) -> Model:
    """Load a SavedModel, by TensorFlow 1's loader if `tf.saved_model.load` fails.

    It is unpacked into a temporary folder; once it is loaded, variables and vocabularies are in memory.

    Args:
        artifact: the zip.
        signature: which of its signatures to use.
        trusted: load it even if its graph could do more than compute.

    Raises:
        ModelRefused: it cannot be read, could do more than compute (`graph_checks`), has no such signature, or
            TensorFlow is not installed.
    """
    try:
        tf = import_tensorflow()
        with tempfile.TemporaryDirectory(prefix="stepensemble-") as temporary:
            folder = Path(temporary) / "model"
            extract_archive(artifact, folder, keep=is_saved_model_file)
            if not trusted:
                check_saved_model(_read_saved_model(folder), list_archive(artifact), "the SavedModel")
            return _load_folder(tf, folder, signature)
    except (ModelFileError, TensorFlowMissing) as error:
        raise ModelRefused(str(error)) from None


def check_saved_model(saved_model: Any, files: Collection[str], what: str) -> None:
    """Reject a SavedModel that could do more than compute; see `graph_checks.check_graphs`."""
    check_graphs(saved_model.meta_graphs, files, is_operation, what)


def is_operation(name: str) -> bool:
    """Return whether TensorFlow has an operation of that name."""
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(name) is not None


def parse_saved_model(body: bytes) -> Any:
    """Return the protocol buffer in the content of `saved_model.pb`.

    Raises:
        ModelRefused: it cannot be parsed.
        TensorFlowMissing: it is not installed; it defines the message.
    """
    import_tensorflow()
    from google.protobuf.message import DecodeError  # comes with TensorFlow
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        return saved_model_pb2.SavedModel.FromString(body)
    except DecodeError:
        raise ModelRefused("saved_model.pb is truncated or damaged; copy it again") from None


def select_graph(saved_model: Any) -> Any:
    """Return the graph of a SavedModel that is served.

    Raises:
        ModelRefused: it has several, and none is tagged "serve".
    """
    graphs = saved_model.meta_graphs
    for graph in graphs:
        if len(graphs) == 1 or list(graph.meta_info_def.tags) == [SERVE]:
            return graph
    tags = ", ".join(show("+".join(graph.meta_info_def.tags)) for graph in graphs)
    raise ModelRefused(f'no graph of the SavedModel is tagged "{SERVE}"; there are {tags or "none"}')


def _read_saved_model(folder: Path) -> Any:
    try:
        return parse_saved_model((folder / "saved_model.pb").read_bytes())
    except OSError:
        raise ModelRefused("the archive has no saved_model.pb at its top, so it is not a SavedModel") from None


def _load_folder(tf: Any, folder: Path, signature: str | None) -> Model:
    tags = list(select_graph(_read_saved_model(folder)).meta_info_def.tags)
    try:
        loaded = tf.saved_model.load(str(folder), tags=tags)
    except Exception as error:  # noqa: BLE001 - the loader may raise anything for a foreign file
        return _load_as_version_1(tf, folder, tags, signature, error)
    return _from_functions(tf, loaded, signature)


def _from_functions(tf: Any, loaded: Any, signature: str | None) -> Model:
    name = _select(loaded.signatures, signature)
    inputs = dict(sorted(loaded.signatures[name].structured_input_signature[1].items()))
    names = tuple(inputs)

    def invoke(values: Sequence[Array], output: str) -> Array:
        given = dict(zip(names, map(tf.constant, values), strict=True))
        with _running(tf, values):
            # Through `loaded`, which keeps the variables alive.
            result: Array = loaded.signatures[name](**given)[output].numpy()
        return result

    return Model(_describe(name, inputs, loaded.signatures[name].structured_outputs), invoke)


def _load_as_version_1(tf: Any, folder: Path, tags: list[str], signature: str | None, load_error: Exception) -> Model:
    v1 = tf.compat.v1
    graph = tf.Graph()
    settings = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with graph.as_default():
        session = v1.Session(graph=graph, config=settings)
        try:
            found = v1.saved_model.loader.load(session, tags, str(folder)).signature_def
        except Exception as error:  # noqa: BLE001 - as above
            session.close()
            raise ModelRefused(
                f"TensorFlow cannot load the SavedModel: {summarize(load_error)}; nor can its loader of version 1: "
                f"{summarize(error)}"
            ) from None
    name = _select([key for key in found if found[key].inputs and found[key].outputs], signature)
    inputs, outputs = (
        {key: graph.get_tensor_by_name(_tensor_name(key, info)) for key, info in sorted(group.items())}
        for group in (found[name].inputs, found[name].outputs)
    )
    outputs = {
        key: graph.get_tensor_by_name(_tensor_name(key, found[name].outputs[key])) for key in found[name].outputs
    }
    inputs = dict(sorted(inputs.items()))
    fed = tuple(inputs.values())

    def invoke(values: Sequence[Array], output: str) -> Array:
        with _running(tf, values):
            result: Array = session.run(outputs[output], dict(zip(fed, values, strict=True)))
        return result

    return Model(_describe(name, inputs, outputs), invoke)


def _select(names: Iterable[str], wanted: str | None) -> str:
    name = select_signature(names, wanted)
    if name is None:
        raise ModelRefused("the SavedModel has no signatures; save it with signatures=…, or by Keras' model.export")
    return name


def _tensor_name(key: str, info: Any) -> str:
    if info.WhichOneof("encoding") != "name":
        raise ModelRefused(f"{show(key)} is a sparse or composite tensor; inputs and outputs must be dense")
    return str(info.name)


@contextmanager
def _running(tf: Any, values: Sequence[Array]) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise InputMismatch(f"TensorFlow cannot run the model on {len(values[0])} rows: {summarize(error)}") from None


def _describe(name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Signature:
    return describe(name, [_tensor(*one) for one in inputs.items()], [_tensor(*one) for one in sorted(outputs.items())])


def _tensor(name: str, spec: Any) -> Tensor:
    dtype = spec.dtype.name
    if dtype != STRING and not (spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool):
        raise ModelRefused(f"{show(name)} is {dtype}, which is neither numbers nor text")
    if dtype != STRING and dtype not in np.sctypeDict:
        raise ModelRefused(f"{show(name)} is {dtype}, which NumPy does not have; cast it in the model")
    return Tensor(name, dtype, None if spec.shape.rank is None else tuple(spec.shape.as_list()))


def summarize(error: Exception) -> str:
    """Return the line with the cause from a message of TensorFlow's, which may be several pages long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    informative = [line for line in lines if not line.startswith(HEADINGS)]
    return informative[0][:300] if informative else type(error).__name__
