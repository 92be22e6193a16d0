"""What code a model file could run.

A Keras file describes layers by the names of classes, and Keras calls what the names lead to. A SavedModel is a graph
of operations, and some of them run Python or touch files. Both are read here as data, before Keras or TensorFlow see
them. What is found are sentences; none found means that the file computes, and does nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from stepensemble.core.errors import FileDamaged, FileUnsafe
from stepensemble.core.problems import show

TRUST = "If you know who made it and what it does, take it with --trust"

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
"""Where the parts of a model are: everything in them computes. Not `keras.utils` (it fetches files), not `keras.saving`
and `keras.config` (they load files, and switch safety off), not `keras.datasets`, `keras.applications` (they fetch),
`keras.callbacks` (they write)."""

KERAS_INSIDE = re.compile(
    r"keras\.src\.(activations|constraints|dtype_policies|initializers|layers|losses|metrics|models|ops|optimizers|"
    r"quantizers|random|regularizers)(\.\w+)*"
)
"""The same families by the names that classes without a public one are saved under."""

KERAS_CODE: Mapping[str, str] = {
    "Lambda": "a Lambda layer, which runs Python that lies in the file",
    "__lambda__": "a Python function that lies in the file",
    "TFSMLayer": "a TFSMLayer, which runs a SavedModel from a path",
    "TorchModuleWrapper": "a TorchModuleWrapper, which runs a pickle",
    "JaxLayer": "a JaxLayer, which calls a function of its own",
    "FlaxLayer": "a FlaxLayer, which calls a module of its own",
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
"""Functions of Keras that it may write as if they were Python's own."""

PLAIN = frozenset(
    {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__typespec__"}
)
"""Values that Keras writes with a class's name though they are data."""

RUNS_CODE = frozenset({"EagerPyFunc", "PyFunc", "PyFuncStateless", "XlaCustomCall", "XlaCustomCallV2", "Abort"})

READS_FILES = frozenset(
    {
        "CSVDataset",
        "CSVDatasetV2",
        "ExperimentalCSVDataset",
        "ExperimentalLMDBDataset",
        "ExperimentalMatchingFilesDataset",
        "ExperimentalSqlDataset",
        "FixedLengthRecordDataset",
        "FixedLengthRecordDatasetV2",
        "FixedLengthRecordReader",
        "FixedLengthRecordReaderV2",
        "GenerateVocabRemapping",
        "ImmutableConst",
        "LMDBDataset",
        "LMDBReader",
        "ListSnapshotChunksDataset",
        "LoadAndRemapMatrix",
        "LoadDataset",
        "MatchingFiles",
        "MatchingFilesDataset",
        "ReadFile",
        "RecordInput",
        "Restore",
        "RestoreSlice",
        "SnapshotChunkDataset",
        "SqlDataset",
        "TFRecordDataset",
        "TFRecordDatasetV2",
        "TFRecordReader",
        "TFRecordReaderV2",
        "TextLineDataset",
        "TextLineReader",
        "TextLineReaderV2",
        "WholeFileReader",
        "WholeFileReaderV2",
    }
)

WRITES_FILES = frozenset(
    {
        "CacheDataset",
        "CacheDatasetV2",
        "CalibrationStatisticsSaver",
        "CreateSummaryDbWriter",
        "CreateSummaryFileWriter",
        "DatasetToTFRecord",
        "DebugIdentity",
        "DebugIdentityV2",
        "DebugIdentityV3",
        "DebugNanCount",
        "DebugNumericSummary",
        "DebugNumericSummaryV2",
        "DistributedSave",
        "DumpTensor",
        "ExperimentalDatasetToTFRecord",
        "Save",
        "SaveDataset",
        "SaveDatasetV2",
        "SaveSlices",
        "SnapshotDataset",
        "SnapshotDatasetV2",
        "WriteFile",
    }
)

USES_NETWORK = frozenset(
    {
        "DataServiceDataset",
        "DataServiceDatasetV2",
        "DataServiceDatasetV3",
        "DataServiceDatasetV4",
        "FileSystemSetConfiguration",
        "RemoteCall",
        "RpcCall",
        "RpcClient",
        "RpcServer",
        "RpcServerStart",
    }
)

SAVES, RESTORES = frozenset({"MergeV2Checkpoints", "SaveV2"}), frozenset({"RestoreV2"})
"""They touch files, and every SavedModel has them: for its own variables, in parts that no signature reaches."""

TABLES = {"InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}
"""They read a vocabulary; which of their inputs is its path. It may be an asset, which is in the SavedModel."""


def check_keras_config(text: str | bytes, name: str) -> None:
    """Refuse a Keras model's configuration that could run more than Keras' own layers.

    How the model was compiled is not looked at, since it is not read either.

    Args:
        text: JSON: `config.json` of a `.keras` file, the attribute `model_config` of an `.h5`, an architecture.
        name: of the file, for errors.

    Raises:
        FileDamaged: it is not JSON.
        FileUnsafe: with every reason.
    """
    try:
        config = json.loads(text)  # as Keras reads it: of a key that stands twice, the last counts
    except (ValueError, RecursionError):
        raise FileDamaged(f"the configuration in {show(name)} is not JSON: the file is damaged") from None
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if key != "compile_config"}
    refuse(sorted(set(find_keras_code(config))), name)


def refuse(reasons: Collection[str], name: str) -> None:
    """Raise FileUnsafe with the reasons, if there are any."""
    if reasons:
        found = "; ".join(reasons)
        raise FileUnsafe(
            f"{show(name)} is refused, since loading it could do more than compute. It has {found}. {TRUST}"
        )


def find_keras_code(config: Any) -> Iterator[str]:
    """Yield every part of a configuration that is not known to be a layer, or another part of Keras that computes."""
    waiting = [config]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            waiting += found.values()
            if "class_name" in found:
                yield from _judge_object(found)


def _judge_object(found: Mapping[str, Any]) -> Iterator[str]:
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
        known = config in ACTIVATIONS if module == "builtins" else module in KERAS_MODULES
        if not isinstance(config, str) or not known:
            yield f"a function of its own, {show(config)} of {_where(module)}"
    elif (module and not _of_keras(module)) or module is None or not re.fullmatch(r"_*[A-Z]\w*", kind):
        yield f"a class of its own, {show(kind)} of {_where(module)}"
    if isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
        yield f"a vocabulary that is read from a file, {show(config['vocabulary'])}"


def _of_keras(module: str) -> bool:
    return module in KERAS_MODULES or KERAS_INSIDE.fullmatch(module) is not None


def _where(module: str | None) -> str:
    return f"the module {show(module)}" if module else "no module of Keras"


def check_hdf5(file: Any, name: str) -> None:
    """Refuse an open HDF5 file (`h5py.File`) whose data lies in other files.

    Raises:
        FileUnsafe: with every reason.
    """
    refuse(sorted(set(_find_outside(file))), name)


def _find_outside(file: Any) -> Iterator[str]:
    import h5py  # comes with TensorFlow

    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen:  # a group may hold itself
            continue
        seen.add(place)
        for key in group:
            if isinstance(group.get(key, getlink=True), h5py.ExternalLink | h5py.SoftLink):
                yield f"a link, {show(key)}"  # one to this file has no use in a model, and may go round in circles
                continue
            found = group.get(key)
            if isinstance(found, h5py.Group):
                waiting.append(found)
            elif isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
                yield f"data that lies in another file, {show(key)}"


Functions: TypeAlias = Mapping[str, Iterable[Any]]
"""The nodes of every function of a graph's library."""


def check_graph(graph: Any, name: str) -> None:
    """Refuse a SavedModel's graph (`MetaGraphDef`) that could run Python, or touch files other than its own.

    Raises:
        FileUnsafe: with every reason.
    """
    refuse(sorted(set(find_graph_code(graph))), name)


def find_graph_code(graph: Any) -> Iterator[str]:
    """Yield every operation of a `MetaGraphDef` that does more than compute."""
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    assets = {asset.tensor_info.name.split(":")[0] for asset in graph.asset_file_def}
    saving, restoring = _parts_of_the_saver(graph, functions)
    for place, nodes in (("", graph.graph_def.node), *functions.items()):
        by_name = {node.name: node for node in nodes}
        for node in nodes:
            if node.op in SAVES | RESTORES:
                where: Place = ("function", place) if place else ("node", node.name)
                if where not in (saving if node.op in SAVES else restoring):
                    yield f"{node.op}, which touches files, outside the part that saves its variables"
            elif node.op in TABLES:
                if not _is_asset(node.input[TABLES[node.op]], by_name, assets, inside=bool(place)):
                    yield f"{node.op}, which reads a file that is not one of its assets"
            else:
                yield from _judge_operation(node)


def _judge_operation(node: Any) -> Iterator[str]:
    for operations, deed in (
        (RUNS_CODE, "runs code outside the model"),
        (READS_FILES, "reads files"),
        (WRITES_FILES, "writes files"),
        (USES_NETWORK, "uses the network"),
    ):
        if node.op in operations:
            yield f"{node.op}, which {deed}"
    if node.op == "PrintV2" and node.attr["output_stream"].s.startswith(b"file:"):
        yield "PrintV2, which writes a file here"


def _is_asset(source: str, nodes: Mapping[str, Any], assets: Collection[str], *, inside: bool) -> bool:
    """Tell whether an input comes from an asset: the node that names one or, inside a function, an argument."""
    name = _node(source)
    while name in nodes and nodes[name].op == "Identity":
        name = _node(nodes[name].input[0])
    return name in assets if not inside else name not in nodes


def find_unknown_operations(graph: Any, known: Callable[[str], bool]) -> list[str]:
    """Name the operations of a `MetaGraphDef` that TensorFlow does not have."""
    functions = graph.graph_def.library.function
    own = {function.signature.name for function in functions}
    bodies = (graph.graph_def.node, *(function.node_def for function in functions))
    return sorted({node.op for nodes in bodies for node in nodes if node.op not in own and not known(node.op)})


def _parts_of_the_saver(graph: Any, functions: Functions) -> tuple[set[Place], set[Place]]:
    """Return the nodes and functions that only saving reaches, and those that only saving and restoring do.

    Restoring happens when the model is loaded, saving never: what restoring reaches may not write.
    """
    saver = graph.saver_def
    others = [
        info.name
        for signature in graph.signature_def.values()
        for info in (*signature.inputs.values(), *signature.outputs.values())
    ]
    for key in ("saved_model_main_op", "legacy_init_op", "table_initializer"):
        others += graph.collection_def[key].node_list.value if key in graph.collection_def else []
    others += graph.object_graph_def.concrete_functions
    by_others = _reach(others, graph, functions)
    by_restoring = _reach([saver.filename_tensor_name, saver.restore_op_name], graph, functions)
    by_saving = _reach([saver.save_tensor_name], graph, functions)
    return by_saving - by_restoring - by_others, (by_saving | by_restoring) - by_others


Place: TypeAlias = tuple[Literal["node", "function"], str]
"""A node of the graph itself, or a function of its library with all its nodes."""


def _reach(roots: Iterable[str], graph: Any, functions: Functions) -> set[Place]:
    """Return what is computed for some nodes, or for functions: the nodes before them, what they call, and so on."""
    nodes = {node.name: node for node in graph.graph_def.node}
    reached: set[Place] = set()
    waiting: list[Place] = [("function" if root in functions else "node", root) for root in map(_node, roots)]
    while waiting:
        place = waiting.pop()
        if place in reached:
            continue
        reached.add(place)
        kind, name = place
        if kind == "node" and name in nodes:
            waiting += (("node", _node(source)) for source in nodes[name].input)
            waiting += _called(nodes[name])
        elif kind == "function":
            for node in functions.get(name, ()):
                waiting += _called(node)
    return reached


def _node(source: str) -> str:
    """Return the node that an input names: without its output, and without the mark of order alone."""
    return source.lstrip("^").split(":")[0]


def _called(node: Any) -> Iterator[Place]:
    yield "function", node.op  # a function may be called as if it were an operation
    for value in node.attr.values():
        if value.HasField("func"):
            yield "function", value.func.name
        yield from (("function", function.name) for function in value.list.func)
