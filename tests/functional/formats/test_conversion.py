"""Every kind of model file becomes an artifact with the same outputs as the file in TensorFlow."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepensemble.conversion.child_process import Crash, run_in_child
from stepensemble.conversion.converter import ConversionOptions, Converted, convert
from stepensemble.conversion.export import Export, Exported
from stepensemble.conversion.formats import read_source
from stepensemble.core.errors import (
    ConversionFailed,
    FileDamaged,
    FileUnsafe,
    FormatUnknown,
    InputMismatch,
    ModelRefused,
)
from stepensemble.core.releases.release import digest_of
from stepensemble.runtimes import load_model

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # inside Keras
]

JobRunner = Callable[..., list[Any]]


def column(*values: float) -> Any:
    return np.array(values, dtype=np.float32)[:, None]


def predict(converted: Converted, inputs: Any, output: str | None = None) -> Any:
    return load_model(converted.runtime, converted.artifact, converted.signature.name).predict(inputs, output)


def softmax(x: Any) -> Any:
    """Compute the outputs of the Keras models by hand (see `conftest`)."""
    powers = np.exp(x @ np.array([[1, -1, 0], [0.5, 0, 2]]) + np.array([0, 0.25, -0.5]))
    return powers / powers.sum(axis=1, keepdims=True)


def zipped(folder: Path, top: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*"):
            archive.write(path, top + str(path.relative_to(folder)))
    return buffer.getvalue()


# To LiteRT


def test_a_saved_model_becomes_a_litert_file(made: Path, run: JobRunner) -> None:
    converted = convert(made / "half", run=run)
    assert (converted.runtime, converted.source, converted.reason) == ("litert", "saved_model", None)
    assert converted.parity is not None
    assert (converted.parity.max_difference, converted.parity.rows) == (0.0, 16)
    assert predict(converted, column(0, 1, -4)).tolist() == [[2.0], [2.5], [0.0]]


@pytest.mark.parametrize("top", ["", "model/", "model/1/"])
def test_a_zip_of_it_becomes_the_same_file(made: Path, run: JobRunner, tmp_path: Path, top: str) -> None:
    path = tmp_path / "half.zip"
    path.write_bytes(zipped(made / "half", top))
    assert convert(path, run=run).artifact == convert(made / "half", run=run).artifact


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("softmax.keras", None), ("softmax.h5", None), ("keras_2.h5", None), ("softmax.weights.h5", "softmax.json")],
)
def test_every_keras_file_is_converted(made: Path, run: JobRunner, name: str, architecture: str | None) -> None:
    rows = np.array([[0, 0], [1, -2], [3, 0.5]], dtype=np.float32)
    converted = convert(
        made / name, ConversionOptions(architecture=None if architecture is None else made / architecture), run=run
    )
    assert (converted.runtime, converted.signature.inputs[0].shape) == ("litert", (2,))
    np.testing.assert_allclose(predict(converted, rows), softmax(rows), rtol=1e-5)


def test_a_model_of_images_keeps_their_shape(made: Path, run: JobRunner) -> None:
    converted = convert(made / "image.keras", run=run)
    assert (converted.runtime, converted.signature.inputs[0].shape) == ("litert", (8, 8, 1))
    # A kernel of ones sums nine pixels; the greatest such sum over an image of one bright pixel is that pixel.
    image = np.zeros((2, 8, 8, 1), dtype=np.float32)
    image[0, 3, 4], image[1, 2:5, 2:5] = 7.0, 1.0
    assert predict(converted, image).tolist() == [[7.0, 7.0], [9.0, 9.0]]


def test_several_inputs_and_outputs_keep_their_names(made: Path, run: JobRunner) -> None:
    converted = convert(made / "named", run=run)
    rows = {"a": column(10, 20), "b": np.array([[1, 2], [3, 4]], dtype=np.float32)}
    assert converted.runtime == "litert"
    assert predict(converted, rows, "total").tolist() == [[13.0], [27.0]]
    assert predict(converted, rows, "first").tolist() == [[10.0], [20.0]]


def test_text_is_compared_as_labels(made: Path, run: JobRunner) -> None:
    converted = convert(made / "text", run=run)
    assert (converted.runtime, converted.parity is not None and converted.parity.labels_changed) == ("litert", 0)
    assert predict(converted, column(1, -1)).tolist() == ["yés", "no"]


def test_a_model_with_a_batch_of_one_is_converted_too(made: Path, run: JobRunner) -> None:
    converted = convert(made / "fixed_one", run=run)
    assert (converted.runtime, converted.signature.batch) == ("litert", 1)
    assert predict(converted, column(0, 1, -4)).tolist() == [[2.0], [2.5], [0.0]]


def test_a_signature_can_be_chosen_and_must_be_without_a_default(made: Path, run: JobRunner) -> None:
    assert predict(
        convert(made / "signatures", ConversionOptions(signature="double"), run=run), column(3)
    ).tolist() == [[6.0]]
    assert predict(convert(made / "default", run=run), column(3)).tolist() == [[3.5]]
    with pytest.raises(ModelRefused, match='the model has the signatures "double", "half"; choose one of them'):
        convert(made / "signatures", run=run)


def test_rows_to_compare_on_can_be_given(made: Path, run: JobRunner) -> None:
    converted = convert(made / "half", golden=column(1, 2, 3), run=run)
    assert converted.parity is not None
    assert converted.parity.rows == 3
    with pytest.raises(InputMismatch, match=r"the model takes \[1\] numbers a row"):
        convert(made / "half", golden=np.zeros((1, 2), dtype=np.float32), run=run)


@pytest.mark.parametrize("name", ["version_1", "version_1_only"])
def test_saved_models_of_version_1_are_accepted_by_either_loader(made: Path, run: JobRunner, name: str) -> None:
    assert predict(convert(made / name, run=run), column(0, 1, -4)).tolist() == [[2.0], [2.5], [0.0]]


# What stays with TensorFlow


def test_an_operation_that_litert_does_not_have_is_named(made: Path, run: JobRunner) -> None:
    converted = convert(made / "determinant", run=run)
    assert (converted.runtime, converted.parity) == ("tensorflow", None)
    assert converted.reason == "LiteRT does not have the operations MatrixDeterminant"
    matrices = np.array([[[1, 2], [3, 4]], [[2, 0], [0, 2]]], dtype=np.float32)
    np.testing.assert_allclose(predict(converted, matrices), [-2.0, 4.0], rtol=1e-6)


def test_a_model_whose_litert_outputs_differ_stays_with_tensorflow(made: Path, run: JobRunner) -> None:
    converted = convert(made / "random", run=run)
    assert converted.runtime == "tensorflow"
    assert converted.parity is not None
    assert converted.parity.deviation > 1e-4
    assert str(converted.reason).startswith("LiteRT's outputs differ from TensorFlow's: at most ")


def test_a_label_that_changes_is_enough(made: Path, run: JobRunner) -> None:
    calls: list[Any] = []

    def labels(output: Any) -> Any:
        calls.append(output)
        return np.full(len(output), len(calls))  # the second output is LiteRT's

    converted = convert(made / "half", labels=labels, run=run)
    assert (converted.runtime, converted.parity is not None and converted.parity.labels_changed) == ("tensorflow", 16)
    assert str(converted.reason).endswith("on 16 rows, 16 labels changed")


def test_a_saved_model_is_packed_unchanged(made: Path, run: JobRunner, tmp_path: Path) -> None:
    path = tmp_path / "up.zip"
    path.write_bytes(zipped(made / "determinant", "up/"))
    artifacts = [convert(source, run=run).artifact for source in (made / "determinant", path)]
    assert artifacts[0] == artifacts[1] == read_source(made / "determinant").body


def test_the_same_file_becomes_the_same_bytes_in_every_process(made: Path, run: JobRunner) -> None:
    names = ("determinant.keras", "softmax.keras")
    jobs = [Export(name, "keras", (made / name).read_bytes(), None, None, False, None) for name in names]
    stays, converts = run_in_child(jobs, Exported, 300)
    assert isinstance(stays, Exported)
    assert isinstance(converts, Exported)
    again = convert(made / "determinant.keras")
    assert (again.runtime, digest_of(again.artifact)) == ("tensorflow", digest_of(stays.saved_model))
    assert again.artifact == stays.saved_model
    assert convert(made / "softmax.keras", run=run).artifact == converts.litert


# What is not taken


@pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5"])
def test_a_lambda_layer_is_rejected_unless_trusted(made: Path, run: JobRunner, name: str) -> None:
    with pytest.raises(FileUnsafe, match="a Lambda layer, which runs Python code from the file"):
        convert(made / name, run=run)
    assert predict(convert(made / name, ConversionOptions(trust=True), run=run), column(1)).tolist() == [[2.5]]


def test_weights_alone_need_their_architecture(made: Path, run: JobRunner, tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match=r"has only weights; give .*--architecture"):
        convert(made / "softmax.weights.h5", run=run)
    with pytest.raises(ConversionFailed, match=r"none.json cannot be read: .*No such file"):
        convert(made / "softmax.weights.h5", ConversionOptions(architecture=tmp_path / "none.json"), run=run)


def test_an_architecture_with_code_is_rejected(made: Path, run: JobRunner, tmp_path: Path) -> None:
    path = tmp_path / "architecture.json"
    path.write_text((made / "softmax.json").read_text().replace('"Dense"', '"Lambda"'))
    with pytest.raises(FileUnsafe, match='"the architecture" is rejected'):
        convert(made / "softmax.weights.h5", ConversionOptions(architecture=path), run=run)


def test_an_architecture_that_keras_cannot_read_is_rejected_with_a_remedy(
    made: Path, run: JobRunner, tmp_path: Path
) -> None:
    path = tmp_path / "architecture.json"
    path.write_text((made / "softmax.json").read_text().replace('"Dense"', '"DenseOfLongAgo"'))
    with pytest.raises(ConversionFailed, match=r"^Keras 3\S* cannot read .*; export it with the Keras that wrote it"):
        convert(made / "softmax.weights.h5", ConversionOptions(architecture=path), run=run)


@pytest.mark.parametrize("name", ["softmax.h5", "softmax.keras"])
def test_truncated_files_of_keras_are_damaged(made: Path, run: JobRunner, tmp_path: Path, name: str) -> None:
    whole = (made / name).read_bytes()
    for share in (0.2, 0.5, 0.95):
        path = tmp_path / name
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FileDamaged, match="truncated or damaged"):
            convert(path, run=run)


def test_flipped_bits_in_weights_are_found_if_the_format_has_checksums(
    made: Path, run: JobRunner, tmp_path: Path
) -> None:
    # A SavedModel's variables and a zip's entries have checksums; a bare .h5 has none.
    archive = bytearray((made / "softmax.keras").read_bytes())
    archive[archive.index(np.float32(0.25).tobytes() + np.float32(-0.5).tobytes())] ^= 1
    (tmp_path / "flipped.keras").write_bytes(archive)
    with pytest.raises(FileDamaged, match=r'entry "model\.weights\.h5" is truncated or damaged: Bad CRC-32'):
        convert(tmp_path / "flipped.keras", run=run)
    folder = tmp_path / "half"
    for source in (made / "half").rglob("*"):
        if source.is_file():
            target = folder / source.relative_to(made / "half")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    with pytest.raises(ModelRefused, match=r"TensorFlow cannot load the SavedModel: .*[Cc]hecksum"):
        convert(folder, run=run)


def test_several_versions_in_a_zip_are_listed(made: Path, run: JobRunner, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for version in ("1", "2"):
            archive.write(made / "half" / "saved_model.pb", f"model/{version}/saved_model.pb")
    (tmp_path / "model.zip").write_bytes(buffer.getvalue())
    with pytest.raises(FormatUnknown, match='contains 2 models: "model/1", "model/2"; add each one alone'):
        convert(tmp_path / "model.zip", run=run)


def test_a_crash_of_tensorflow_is_an_error(made: Path) -> None:
    def run(*_: Any) -> Any:
        return [Crash("it crashed (SIGSEGV)")]

    with pytest.raises(ConversionFailed, match=r"TensorFlow read .* in a child process, and it crashed \(SIGSEGV\)"):
        convert(made / "half", run=run)


def test_a_saved_model_without_signatures_is_rejected(made: Path, run: JobRunner) -> None:
    with pytest.raises(ModelRefused, match="the SavedModel has no signatures; save it with signatures="):
        convert(made / "no_signature", run=run)
