"""SavedModels and HDF5 files that do more than compute, as TensorFlow and h5py really write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepensemble.conversion import safety
from stepensemble.conversion.converting import convert
from stepensemble.conversion.formats import read_source
from stepensemble.conversion.safety import check_graph, find_graph_code
from stepensemble.core.errors import ConversionFailed, FileUnsafe
from stepensemble.runtimes.archives import read_archive
from stepensemble.runtimes.tensorflow import parse_saved_model

pytestmark = pytest.mark.tensorflow

Run = Callable[..., list[Any]]


def graph_of(folder: Path) -> Any:
    return parse_saved_model((folder / "saved_model.pb").read_bytes())


def changed(folder: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """Write a SavedModel with another graph."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    for name, body in read_archive(read_source(folder).body).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(body)
    (target / "saved_model.pb").write_bytes(model.SerializeToString())
    return target


def function_of(graph: Any, part: str) -> Any:
    return next(function for function in graph.graph_def.library.function if part in function.signature.name)


@pytest.mark.parametrize("name", ["half", "named", "determinant", "random", "text", "table", "version_1", "signatures"])
def test_models_that_compute_pass(made: Path, name: str) -> None:
    assert list(find_graph_code(graph_of(made / name))) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("python", "PyFunc, which runs code outside the model"),
        ("eager", "EagerPyFunc, which runs code outside the model"),
        ("reads", "ReadFile, which reads files"),
        ("branches", "ReadFile, which reads files"),
        ("writes", "WriteFile, which writes files"),
        ("prints", "PrintV2, which writes a file here"),
        ("saves", "SaveV2, which touches files, outside the part that saves its variables"),
        ("restores", "RestoreV2, which touches files, outside the part that saves its variables"),
        ("looks_up", "InitializeTableFromTextFileV2, which reads a file that is not one of its assets"),
    ],
)
def test_graphs_that_do_more_are_refused_unless_trusted(made: Path, run: Run, name: str, reason: str) -> None:
    with pytest.raises(FileUnsafe) as refused:
        convert(made / name, run=run)
    assert f"It has {reason}. If you know who made it" in str(refused.value)


def test_a_trusted_graph_is_taken(made: Path, run: Run) -> None:
    converted = convert(made / "branches", trust=True, run=run)
    assert converted.signature.name == "serving_default"


def test_a_saver_that_writes_when_the_model_is_loaded_is_refused(made: Path, tmp_path: Path) -> None:
    def restore_by_saving(graph: Any) -> None:
        graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.split(":")[0]

    folder = changed(made / "half", tmp_path, restore_by_saving)
    assert any(reason.startswith("SaveV2") for reason in find_graph_code(graph_of(folder)))


def test_a_saver_that_a_signature_calls_is_refused(made: Path, tmp_path: Path) -> None:
    def answer_by_saving(graph: Any) -> None:
        graph.signature_def["serving_default"].outputs["y"].name = graph.saver_def.save_tensor_name

    folder = changed(made / "half", tmp_path, answer_by_saving)
    with pytest.raises(FileUnsafe, match="SaveV2, which touches files"):
        check_graph(graph_of(folder), "half")


def test_a_saver_that_an_object_of_the_model_calls_is_refused(made: Path, tmp_path: Path) -> None:
    def initialize_by_saving(graph: Any) -> None:
        name = function_of(graph, "traced_save").signature.name
        graph.object_graph_def.concrete_functions[name].SetInParent()

    folder = changed(made / "half", tmp_path, initialize_by_saving)
    with pytest.raises(FileUnsafe, match="SaveV2, which touches files"):
        check_graph(graph_of(folder), "half")


def test_operations_that_tensorflow_does_not_have_are_named_trusted_or_not(
    made: Path, run: Run, tmp_path: Path
) -> None:
    def rename(graph: Any) -> None:
        for node in function_of(graph, "signature_wrapper").node_def[:1]:
            node.op = "SentencepieceOp"

    folder = changed(made / "half", tmp_path, rename)
    for trust in (False, True):
        with pytest.raises(ConversionFailed, match='operations that TensorFlow does not have, "SentencepieceOp"'):
            convert(folder, trust=trust, run=run)


def test_every_operation_that_is_looked_for_exists(tf: Any) -> None:
    from tensorflow.python.framework import op_def_registry

    del tf
    groups = [safety.RUNS_CODE, safety.READS_FILES, safety.WRITES_FILES, safety.USES_NETWORK, safety.SAVES]
    names = set().union(*groups, safety.RESTORES, safety.TABLES)
    assert [name for name in sorted(names) if op_def_registry.get(name) is None] == []


def test_every_module_and_class_of_keras_that_is_named_exists(tf: Any) -> None:
    import keras

    del tf
    for module in safety.KERAS_MODULES - {"keras"}:
        found: Any = keras
        for part in module.split(".")[1:]:
            found = getattr(found, part)
    assert {name for name in safety.KERAS_CODE if not name.startswith("__")} <= set(dir(keras.layers))
    assert set(dir(keras.activations)) >= safety.ACTIVATIONS


def hdf5(path: Path, fill: Callable[[Any], object]) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        fill(file)
    return path


def virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout(shape=(3,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "data", shape=(3,), dtype="f4")
    file.create_virtual_dataset("weights", layout)


def link(group: Any) -> None:
    import h5py

    group["away"] = h5py.ExternalLink("/etc/other.h5", "/")


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (
            lambda file: file.create_dataset("w", (3,), external=[("/etc/passwd", 0, 12)]),
            "data that lies in another file",
        ),
        (virtual, 'data that lies in another file, "weights"'),
        (lambda file: link(file.create_group("deep")), 'a link, "away"'),
    ],
)
def test_hdf5_files_that_lead_to_other_files_are_refused(
    run: Run, tmp_path: Path, fill: Callable[[Any], object], reason: str
) -> None:
    with pytest.raises(FileUnsafe, match=reason):
        convert(hdf5(tmp_path / "model.h5", fill), run=run)


def test_an_hdf5_file_that_holds_itself_comes_to_an_end(run: Run, tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file.create_group("a")["itself"] = file
        file["a"].create_dataset("weights", data=np.zeros(3))

    with pytest.raises(ConversionFailed, match=r"cannot read model\.h5"):
        convert(hdf5(tmp_path / "model.h5", fill), run=run)
