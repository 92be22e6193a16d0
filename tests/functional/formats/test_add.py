"""Files of every kind become members, by way of real TensorFlow."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from builders import X, manifest
from driving import run_ensemble
from stepensemble import Ensemble
from stepensemble.admission.new_member import Addition, Candidate, plan_addition, write_addition
from stepensemble.conversion.sandbox import pack_arrays, unpack_arrays
from stepensemble.core.errors import FileDamaged, FileUnsafe, InputMismatch

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # inside Keras
]

JobRunner = Callable[..., list[Any]]

THREE = {"type": "multiclass", "classes": ["red", "green", "blue"]}
BINARY = {"type": "binary", "classes": ["no", "yes"]}


def number(name: str) -> dict[str, Any]:
    return {"name": name, "type": "number"}


def empty(folder: Path, task: Mapping[str, Any], *features: Mapping[str, Any], **more: Any) -> Path:
    """Write a manifest without members."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**manifest(task=task, features=list(features), **more), "members": []}, indent=2))
    return path


def add(path: Path, file: Path, run: JobRunner, **more: Any) -> Addition:
    fields = more.pop("fields", {})
    planned = plan_addition(path, Candidate(file, {"id": "new", **fields}, **more), run=run)
    write_addition(planned)
    return planned


def predict(path: Path, *rows: Mapping[str, Any]) -> list[Any]:
    """Return each prediction's value."""
    output = Ensemble.load(path).predict({"instances": list(rows)})
    return [one["value"] for one in output["predictions"]]


def zipped(source: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in source.rglob("*"):
            archive.write(path, f"up/{path.relative_to(source)}")
    return target


@pytest.mark.parametrize(
    ("name", "architecture", "source"),
    [
        ("softmax.keras", None, "keras"),
        ("softmax.h5", None, "h5"),
        ("keras_2.h5", None, "h5"),
        ("softmax.weights.h5", "softmax.json", "h5"),
    ],
)
def test_files_of_keras_become_members(
    made: Path, run: JobRunner, tmp_path: Path, name: str, architecture: str | None, source: str
) -> None:
    path = empty(tmp_path, THREE, number("a"), number("b"))
    planned = add(path, made / name, run, architecture=None if architecture is None else made / architecture)
    converted = planned.converted
    assert (converted.source, converted.runtime, planned.member.artifact) == (source, "litert", "halves/new.tflite")
    assert converted.parity is not None
    assert (converted.parity.rows, converted.parity.labels_changed) == (16, 0)
    assert converted.parity.max_difference < 1e-6
    assert planned.inferred["output"].startswith('probabilities in the order "red", "green", "blue"')
    # softmax([0, 0.25, -0.5]), and softmax([1, 0.25, 3.5]): see `conftest`.
    output = Ensemble.load(path).predict({"instances": [{"a": 0, "b": 0}, {"a": 0, "b": 2}]})
    for one, logits in zip(output["predictions"], ([0, 0.25, -0.5], [1, 0.25, 3.5]), strict=True):
        expected = np.exp(logits) / np.exp(logits).sum()
        assert one["probabilities"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_saved_model_becomes_a_member_as_a_folder_and_as_a_zip(made: Path, run: JobRunner, tmp_path: Path) -> None:
    path = empty(tmp_path, {"type": "regression"}, X)
    add(path, made / "half", run)
    planned = add(path, zipped(made / "half", tmp_path / "half.zip"), run, fields={"id": "other"})
    assert (planned.converted.source, planned.converted.runtime) == ("saved_model", "litert")
    assert planned.report.sources.artifacts["new"] == planned.report.sources.artifacts["other"]
    assert predict(path, {"x": 0}, {"x": -4}) == [2.0, 0.0]


def test_inputs_of_a_saved_model_are_bound_by_their_names(made: Path, run: JobRunner, tmp_path: Path) -> None:
    port = {"name": "b", "type": "category", "vocabulary": ["C", "S"], "encoding": "one_hot"}
    path = empty(tmp_path, {"type": "regression"}, port, number("a"))
    planned = add(path, made / "named", run, fields={"output": {"kind": "value", "name": "total"}})
    assert planned.member.inputs == {"a": ("a",), "b": ("b=C", "b=S")}
    assert predict(path, {"a": 10, "b": "S"}) == [11.0]


def test_columns_that_a_keras_model_does_not_take_are_reported(made: Path, run: JobRunner, tmp_path: Path) -> None:
    path = empty(tmp_path, THREE, number("a"), number("b"), number("c"))
    message = r'the model takes 2 numbers a row as "x", and there are 3 columns, "a", "b", "c"; .*--columns NAME'
    with pytest.raises(InputMismatch, match=message):
        add(path, made / "softmax.keras", run)
    assert add(path, made / "softmax.keras", run, fields={"columns": ["c", "a"]}).member.columns == ("c", "a")


def test_a_model_that_litert_cannot_run_stays_with_tensorflow_with_the_reason(
    made: Path, run: JobRunner, tmp_path: Path
) -> None:
    path = empty(tmp_path, {"type": "regression"}, {"name": "matrix", "type": "tensor", "shape": [2, 2]})
    planned = add(path, made / "determinant.keras", run)
    assert (planned.member.runtime, planned.member.artifact) == ("tensorflow", "halves/new.zip")
    assert "LiteRT does not have the operations" in str(planned.converted.reason)
    assert predict(path, {"matrix": [[2, 1], [1, 3]]}) == [pytest.approx(5.0)]


def test_a_label_that_only_the_task_defines_is_compared_too(tf: Any, run: JobRunner, tmp_path: Path) -> None:
    module = tf.Module()
    sigmoid = tf.function(lambda x: {"p": tf.sigmoid(x)}).get_concrete_function(x=tf.TensorSpec([None, 1], name="x"))
    tf.saved_model.save(module, str(tmp_path / "sigmoid"), signatures=sigmoid)

    def shifted(jobs: Sequence[Any], *arguments: Any) -> list[Any]:
        """Increase TensorFlow's outputs a little, within the tolerance."""
        (exported,) = run(jobs, *arguments)
        outputs = {name: fields + np.float32(1e-5) for name, fields in unpack_arrays(exported.outputs).items()}
        return [structs.replace(exported, outputs=pack_arrays(outputs))]

    golden = [
        {"x": x} for x in (-4, -3, -2, -1, -1e-5, 1, 2, 3)
    ]  # for -1e-5, LiteRT returns less than 0.5, and TensorFlow more
    path = empty(tmp_path, BINARY, X, golden=golden)
    planned = plan_addition(path, Candidate(tmp_path / "sigmoid", {"id": "new"}), run=shifted)
    assert planned.converted.parity is not None
    assert (planned.converted.parity.rows, planned.converted.parity.labels_changed) == (8, 1)
    assert planned.member.runtime == "tensorflow"


@pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5"])
def test_a_lambda_layer_is_accepted_only_with_trust(made: Path, run: JobRunner, tmp_path: Path, name: str) -> None:
    path = empty(tmp_path, {"type": "regression"}, X)
    before = path.read_bytes()
    with pytest.raises(FileUnsafe, match=r"a Lambda layer, which runs Python .*--trust"):
        add(path, made / name, run)
    assert (path.read_bytes(), [*tmp_path.iterdir()]) == (before, [path])
    add(path, made / name, run, trust=True)
    assert predict(path, {"x": 1}) == [2.5]


def test_trust_in_a_saved_model_is_written_only_if_needed(made: Path, run: JobRunner, tmp_path: Path) -> None:
    path = empty(tmp_path, {"type": "regression"}, X)
    with pytest.raises(FileUnsafe, match=r'"ReadFile"\. .* accept it with ensemble add --trust'):
        add(path, made / "branches", run)
    added = add(path, made / "branches", run, trust=True)
    assert (added.member.runtime, added.member.trusted) == ("tensorflow", added.member.digest)
    assert predict(path, {"x": 3}) == [3.0]
    # In its place one that only computes, trusted without need.
    added = add(path, made / "random", run, fields={"varies": True}, trust=True, replace=True)
    assert (added.member.runtime, added.member.trusted) == ("tensorflow", None)


@pytest.mark.parametrize("name", ["softmax.keras", "softmax.h5"])
def test_a_truncated_file_changes_nothing(made: Path, run: JobRunner, tmp_path: Path, name: str) -> None:
    (tmp_path / "up").mkdir()
    path = empty(tmp_path / "up", THREE, number("a"), number("b"))
    before = path.read_bytes()
    (tmp_path / name).write_bytes((made / name).read_bytes()[:-500])
    with pytest.raises(FileDamaged, match="truncated or damaged"):
        add(path, tmp_path / name, run)
    assert (path.read_bytes(), [*path.parent.iterdir()]) == (before, [path])


def test_the_command_converts_in_a_child_process_and_shows_parity(made: Path, tmp_path: Path) -> None:
    path = empty(tmp_path, THREE, number("a"), number("b"))
    shutil.copy(made / "softmax.keras", tmp_path)
    done = run_ensemble(tmp_path, "add", "softmax.keras", "--id", "first", "--manifest", path.name, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["source"], document["runtime"], document["reason"]) == ("keras", "litert", None)
    assert (document["parity"]["rows"], document["parity"]["labels_changed"]) == (16, 0)
    again = run_ensemble(tmp_path, "add", "softmax.keras", "--id", "first", "--manifest", path.name, "--replace")
    assert (again.returncode, again.stderr) == (0, "")
    lines = again.stdout.splitlines()
    assert lines[0].rstrip() == "member    first, version 1, replaces version 1"
    assert lines[1].rstrip() == "model     a Keras 3 file, converted to LiteRT"
    assert lines[2].startswith("parity    LiteRT differs from TensorFlow by at most ")
    assert lines[2].rstrip().endswith(" of the output's scale, no labels changed")
