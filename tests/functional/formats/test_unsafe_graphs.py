"""SavedModels and HDF5 files that do more than compute, as TensorFlow and h5py really write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepensemble.conversion import safety
from stepensemble.conversion.converter import ConversionOptions, convert
from stepensemble.conversion.formats import read_source
from stepensemble.core.errors import ConversionFailed, FileUnsafe, ModelRefused
from stepensemble.runtimes import load_model
from stepensemble.runtimes.archives import read_archive, write_archive
from stepensemble.runtimes.tensorflow import check_saved_model, import_tensorflow, parse_saved_model

pytestmark = pytest.mark.tensorflow

JobRunner = Callable[..., list[Any]]


def check(folder: Path) -> None:
    """Check a SavedModel as a slot does before it loads one."""
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    check_saved_model(parse_saved_model((folder / "saved_model.pb").read_bytes()), files, "it")


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
    check(made / name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("python", 'not known to only compute, "PyFunc"'),
        ("eager", 'not known to only compute, "EagerPyFunc"'),
        ("reads", 'not known to only compute, "ReadFile"'),
        ("branches", 'not known to only compute, "ReadFile"'),
        ("writes", 'not known to only compute, "WriteFile"'),
        ("prints", 'not known to only compute, "PrintV2"'),
        ("saves", "SaveV2, which writes files, outside the part that saves its variables"),
        ("restores", "RestoreV2, which reads files, outside the part that restores its variables"),
        ("looks_up", "InitializeTableFromTextFileV2, which may read a file that is not one of its assets"),
    ],
)
def test_graphs_that_do_more_than_compute_are_rejected_unless_trusted(
    made: Path, run: JobRunner, name: str, reason: str
) -> None:
    with pytest.raises(FileUnsafe) as raised:
        convert(made / name, run=run)
    assert f"{reason}. If you know who made it" in str(raised.value)
    with pytest.raises(ModelRefused, match="the SavedModel is rejected, since loading it could do more than compute"):
        load_model("tensorflow", read_source(made / name).body)


def test_a_trusted_graph_is_accepted(made: Path, run: JobRunner) -> None:
    converted = convert(made / "branches", ConversionOptions(trust=True), run=run)
    assert (converted.runtime, converted.needs_trust) == ("tensorflow", True)
    assert convert(made / "determinant", ConversionOptions(trust=True), run=run).needs_trust is False
    one = np.ones((1, 1), dtype=np.float32)
    assert load_model("tensorflow", converted.artifact, trusted=True).predict(one).tolist() == [[1.0]]


def test_a_saver_that_writes_when_the_model_is_loaded_is_rejected(made: Path, tmp_path: Path) -> None:
    def restore_by_saving(graph: Any) -> None:
        graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.split(":")[0]

    with pytest.raises(FileUnsafe, match="SaveV2, which writes files"):
        check(changed(made / "half", tmp_path, restore_by_saving))


def test_a_saver_that_a_signature_calls_is_rejected(made: Path, tmp_path: Path) -> None:
    def answer_by_saving(graph: Any) -> None:
        graph.signature_def["serving_default"].outputs["y"].name = graph.saver_def.save_tensor_name

    with pytest.raises(FileUnsafe, match="SaveV2, which writes files"):
        check(changed(made / "half", tmp_path, answer_by_saving))


def test_a_saver_that_an_object_of_the_model_calls_is_rejected(made: Path, tmp_path: Path) -> None:
    def initialize_by_saving(graph: Any) -> None:
        name = function_of(graph, "traced_save").signature.name
        graph.object_graph_def.concrete_functions[name].SetInParent()

    with pytest.raises(FileUnsafe, match="SaveV2, which writes files"):
        check(changed(made / "half", tmp_path, initialize_by_saving))


def test_operations_that_tensorflow_does_not_have_are_named_trusted_or_not(
    made: Path, run: JobRunner, tmp_path: Path
) -> None:
    def rename(graph: Any) -> None:
        for node in function_of(graph, "signature_wrapper").node_def[:1]:
            node.op = "SentencepieceOp"

    folder = changed(made / "half", tmp_path, rename)
    for trust in (False, True):
        with pytest.raises(ConversionFailed, match='operations that TensorFlow does not have, "SentencepieceOp"'):
            convert(folder, ConversionOptions(trust=trust), run=run)


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
            "data in another file",
        ),
        (virtual, 'data in another file, "weights"'),
        (lambda file: link(file.create_group("deep")), 'a link, "away"'),
    ],
)
def test_hdf5_files_that_refer_to_other_files_are_rejected(
    run: JobRunner, tmp_path: Path, fill: Callable[[Any], object], reason: str
) -> None:
    with pytest.raises(FileUnsafe, match=reason):
        convert(hdf5(tmp_path / "model.h5", fill), run=run)


def test_a_keras_file_with_numpy_arrays_is_rejected(made: Path, run: JobRunner, tmp_path: Path) -> None:
    files = read_archive((made / "softmax.keras").read_bytes())
    files["model.weights.npz"] = files.pop("model.weights.h5")  # where Keras looks next
    (tmp_path / "model.keras").write_bytes(write_archive(files))
    with pytest.raises(FileUnsafe, match=r'arrays that may be pickles, "model\.weights\.npz"'):
        convert(tmp_path / "model.keras", run=run)


def test_a_cycle_in_an_hdf5_file_does_not_loop_forever(run: JobRunner, tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file.create_group("a")["itself"] = file
        file["a"].create_dataset("weights", data=np.zeros(3))

    with pytest.raises(ConversionFailed, match=r"cannot read model\.h5"):
        convert(hdf5(tmp_path / "model.h5", fill), run=run)


# Attacks, each carried out: with trust it reads or writes the file, without trust it is not even loaded.


def save_one(folder: Path, function: Callable[[Any], Any], parts: Any = None) -> Path:
    """Save a function of a column as a SavedModel."""
    tf = import_tensorflow()
    module = tf.Module()
    module.parts = parts
    column = tf.TensorSpec([None, 1], tf.float32, name="x")
    signature = tf.function(lambda x: {"y": function(x)}).get_concrete_function(column)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})
    return folder


def graph_in_a_string(tf: Any, folder: Path, secret: Path) -> Path:
    def write(number: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file(str(secret), "written")]):
            return tf.identity(number)

    pipeline = tf.data.Dataset.range(1).map(write)
    hidden = tf.raw_ops.DatasetToGraphV2(input_dataset=pipeline._variant_tensor).numpy()

    def function(x: Any) -> Any:
        nothing = tf.strings.substr(tf.strings.as_string(x[0, 0]), 0, 0)  # so that it is evaluated at the call
        dataset = tf.raw_ops.DatasetFromGraph(graph_def=tf.strings.join([hidden, nothing]))
        found = tf.raw_ops.DatasetToSingleElement(dataset=dataset, output_types=[tf.int64], output_shapes=[[]])
        return x + tf.cast(found[0], tf.float32)

    return save_one(folder, function)


def path_as_argument(tf: Any, folder: Path, secret: Path) -> Path:
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def inner(path: Any) -> Any:
        table = tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.string)
        filled = tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename=path, key_index=-1, value_index=-2
        )
        with tf.control_dependencies([filled]):
            return tf.raw_ops.LookupTableFindV2(table_handle=table, keys=tf.constant([0], tf.int64), default_value="")

    return save_one(folder, lambda x: tf.repeat(inner(tf.constant(str(secret))), tf.shape(x)[0]))


def vocabulary_of_a_sampler(tf: Any, folder: Path, secret: Path) -> Path:
    def function(x: Any) -> Any:
        sampled = tf.raw_ops.FixedUnigramCandidateSampler(
            true_classes=tf.constant([[0]], tf.int64),
            num_true=1,
            num_sampled=1,
            unique=False,
            range_max=1,
            vocab_file=str(secret),
        )
        return x + tf.cast(sampled[0][0], tf.float32)

    return save_one(folder, function)


def asset_elsewhere(tf: Any, folder: Path, secret: Path) -> Path:
    words = folder.parent / "words.txt"
    words.write_text("no\n")
    table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(str(words), tf.int64, -1, tf.string, 0), default_value="?"
    )
    plain = save_one(folder / "plain", lambda x: table.lookup(tf.cast(x[:, 0], tf.int64)), table)

    def lead_away(graph: Any) -> None:
        graph.asset_file_def[0].filename = str(secret)

    return changed(plain, folder / "changed", lead_away)


@pytest.mark.parametrize(
    ("make", "reason", "expected"),
    [
        (graph_in_a_string, '"DatasetFromGraph", "DatasetToSingleElement"', [[0.0]]),
        (
            path_as_argument,
            "InitializeTableFromTextFileV2, which may read a file that is not one of its assets",
            ["the secret,1"],
        ),
        (vocabulary_of_a_sampler, '"FixedUnigramCandidateSampler"', [[0.0]]),
        (asset_elsewhere, "an asset that is not in its folder", ["the secret,1"]),
    ],
)
def test_an_attack_that_works_with_trust_is_rejected_without(
    tf: Any, run: JobRunner, tmp_path: Path, make: Callable[..., Path], reason: str, expected: list[Any]
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret,1\n")
    folder = make(tf, tmp_path / "model", secret)
    with pytest.raises(FileUnsafe) as raised:
        convert(folder, run=run)
    assert reason in str(raised.value)
    body = read_source(folder).body
    with pytest.raises(ModelRefused, match="the SavedModel is rejected"):
        load_model("tensorflow", body)
    assert secret.read_text() == "the secret,1\n"
    row = np.zeros((1, 1), dtype=np.float32)
    assert load_model("tensorflow", body, trusted=True).predict(row).tolist() == expected
    assert secret.read_text() == ("written" if make is graph_in_a_string else "the secret,1\n")


def test_a_table_that_a_signature_fills_is_rejected(made: Path, tmp_path: Path) -> None:
    """Only where the model is initialized does the loader put in where the asset is."""

    def fill_when_called(graph: Any) -> None:
        filling = next(node for node in graph.graph_def.node if "initializer" in node.attr["f"].func.name)
        graph.signature_def["serving_default"].outputs["y"].name = f"{filling.name}:0"

    with pytest.raises(
        FileUnsafe, match="InitializeTableFromTextFileV2, which may read a file that is not one of its assets"
    ):
        check(changed(made / "table", tmp_path, fill_when_called))


def test_an_initialization_with_inputs_is_an_ordinary_signature(made: Path, tmp_path: Path) -> None:
    def feed_the_initialization(graph: Any) -> None:
        graph.signature_def["__saved_model_init_op"].inputs["x"].CopyFrom(
            graph.signature_def["serving_default"].inputs["x"]
        )

    with pytest.raises(
        FileUnsafe, match="InitializeTableFromTextFileV2, which may read a file that is not one of its assets"
    ):
        check(changed(made / "table", tmp_path, feed_the_initialization))


def test_a_function_that_may_replace_another_is_not_part_of_saving(made: Path, tmp_path: Path) -> None:
    def stand_in(graph: Any) -> None:
        function_of(graph, "traced_save").attr["api_implements"].s = b"something"

    with pytest.raises(FileUnsafe, match="SaveV2, which writes files"):
        check(changed(made / "half", tmp_path, stand_in))


def test_variables_restored_from_another_path_are_rejected(made: Path, tmp_path: Path) -> None:
    def restore_from_elsewhere(graph: Any) -> None:
        away = graph.graph_def.node.add(name="away", op="Const")
        away.attr["dtype"].type, away.attr["value"].tensor.dtype = 7, 7
        away.attr["value"].tensor.string_val.append(b"/elsewhere")
        call = next(node for node in graph.graph_def.node if "restore" in node.attr["f"].func.name)
        call.input[0] = "away"

    with pytest.raises(FileUnsafe, match="RestoreV2, which reads files, outside the part that restores"):
        check(changed(made / "half", tmp_path, restore_from_elsewhere))


def test_variables_restored_by_a_saver_without_file_names_are_rejected(made: Path, tmp_path: Path) -> None:
    def forget_the_files(graph: Any) -> None:
        call = next(node for node in graph.graph_def.node if "restore" in node.attr["f"].func.name)
        graph.saver_def.restore_op_name, graph.saver_def.filename_tensor_name = call.name, ""
        body = function_of(graph, "traced_restore").node_def
        restoring = next(node for node in body if node.op == "RestoreV2")
        restoring.input[0] = f"{body[0].name}:output:0"

    with pytest.raises(FileUnsafe, match="RestoreV2, which reads files, outside the part that restores"):
        check(changed(made / "half", tmp_path, forget_the_files))


def test_a_function_without_a_name_is_rejected(made: Path, tmp_path: Path) -> None:
    def add_one(graph: Any) -> None:
        graph.graph_def.library.function.add()

    with pytest.raises(FileUnsafe, match="a function without a name"):
        check(changed(made / "half", tmp_path, add_one))


def test_a_graph_that_is_hidden_by_another_is_found(made: Path, tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    def read(name: str) -> Any:
        return saved_model_pb2.SavedModel.FromString((made / name / "saved_model.pb").read_bytes())

    both = read("reads")
    both.meta_graphs[0].meta_info_def.tags.append("serve")  # a set of tags is the same with one twice
    both.meta_graphs.append(read("random").meta_graphs[0])
    (tmp_path / "saved_model.pb").write_bytes(both.SerializeToString())
    with pytest.raises(FileUnsafe, match='"ReadFile"'):
        check(tmp_path)


def test_a_function_that_is_hidden_by_its_namesake_is_found(made: Path, tmp_path: Path) -> None:
    def add_a_namesake(graph: Any) -> None:
        library = graph.graph_def.library
        evil = library.function.add()
        evil.CopyFrom(library.function[0])
        evil.node_def.add(name="evil", op="ReadFile")
        library.function.append(library.function[0])

    with pytest.raises(FileUnsafe, match='"ReadFile"; the name "__inference'):
        check(changed(made / "half", tmp_path, add_a_namesake))


def test_a_function_that_is_called_as_an_operation_is_does_not_hide_it(made: Path, tmp_path: Path) -> None:
    def add_a_function(graph: Any) -> None:
        graph.graph_def.library.function.add().signature.name = "ReadFile"
        graph.graph_def.node.add(name="evil", op="ReadFile")

    with pytest.raises(FileUnsafe, match='"ReadFile"'):
        check(changed(made / "half", tmp_path, add_a_function))


def test_files_that_a_loader_might_read_instead_are_not_unpacked(made: Path) -> None:
    files = read_archive(read_source(made / "half").body)
    for name in ("saved_model.pbtxt", "saved_model.cpb", "fingerprint.pb"):
        files[name] = b"something else"
    one = np.ones((1, 1), dtype=np.float32)
    assert load_model("tensorflow", write_archive(files)).predict(one).tolist() == [[2.5]]
    del files["saved_model.pb"]
    with pytest.raises(ModelRefused, match=r"no saved_model\.pb"):
        load_model("tensorflow", write_archive(files))
