from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from builders import MODELS, model
from stepensemble.conversion.formats import Source, is_model_file, read_source
from stepensemble.core.errors import FileDamaged, FileUnsafe, FormatUnknown, ModelFileError
from stepensemble.runtimes.archives import read_archive, write_archive

GRAPH = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets/vocabulary.txt": b"yes"}
"""Enough to be recognised by; nothing here reads the graph."""


def under(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": body for name, body in files.items()}


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def assert_rejected(path: Path, error: type[ModelFileError], *parts: str) -> None:
    with pytest.raises(error) as raised:
        read_source(path)
    for part in parts:
        assert part in str(raised.value)


# What is known


def test_a_litert_file_is_recognized_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(model("sigmoid"))
    assert (read_source(path).format, read_source(path).body) == ("litert", model("sigmoid"))
    assert read_source(MODELS / "sigmoid.tflite").name == "sigmoid.tflite"


def test_keras_files_are_recognized_by_their_content(tmp_path: Path) -> None:
    for name, body, expected in (
        ("a.zip", zipped({"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b""}), "keras"),
        ("b", b"\x89HDF\r\n\x1a\n", "h5"),
    ):
        (tmp_path / name).write_bytes(body)
        assert read_source(tmp_path / name).format == expected


def test_a_saved_model_has_the_same_bytes_however_it_is_packed(tmp_path: Path) -> None:
    beside = {"fingerprint.pb": b"random", "keras_metadata.pb": b"more", "README.txt": b"hello"}
    sources = [write_folder(tmp_path / "folder", GRAPH), write_folder(tmp_path / "up", under("1", GRAPH))]
    for name, files in {
        "flat": GRAPH,
        "top": under("model", GRAPH),
        "deep": under("a/b/1", GRAPH),
        "beside": GRAPH | beside,
        "mac": under("model", GRAPH) | {"__MACOSX/model/._saved_model.pb": b"fork", "model/.DS_Store": b"view"},
        "copy": under("model", GRAPH) | {"__MACOSX/saved_model.pb": b"fork"},
    }.items():
        (tmp_path / f"{name}.zip").write_bytes(zipped(files))
        sources.append(tmp_path / f"{name}.zip")
    bodies = {read_source(path).body for path in sources}
    assert bodies == {write_archive(GRAPH)}
    assert read_archive(bodies.pop()) == GRAPH


# Several models


@pytest.mark.parametrize("pack", [True, False])
def test_several_versions_are_rejected_with_a_list(tmp_path: Path, pack: bool) -> None:
    files = under("model/1", GRAPH) | under("model/2", GRAPH) | under("model/10", GRAPH)
    path = tmp_path / "versions"
    if pack:
        path.write_bytes(zipped(files))
    else:
        write_folder(path, files)
    listed = 'versions contains 3 models: "model/1", "model/10", "model/2"; add each one alone'
    assert_rejected(path, FormatUnknown, listed)


# Files that are not models


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_rejected(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"weights": [1.0]}, protocol))
    assert_rejected(
        path, FileUnsafe, '"model.pkl" is a pickle', "runs the code in it", "never accepted", "model.export"
    )


@pytest.mark.parametrize("name", ["model.keras", "model", "model.tflite"])
def test_a_pickle_is_recognized_by_its_content(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps([1.0]))
    assert_rejected(tmp_path / name, FileUnsafe, "is a pickle")


@pytest.mark.parametrize("name", ["a.joblib", "a.pt", "a.PTH", "a.pickle", "a.sav"])
def test_a_pickle_is_recognized_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b compressed, so that nothing shows")
    assert_rejected(tmp_path / name, FileUnsafe, "is a pickle")


def test_a_zip_of_pickles_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(zipped({"archive/data.pkl": b"pickled", "archive/version": b"3"}))  # as torch.save makes it
    assert_rejected(path, FileUnsafe, "is a pickle")


def test_arrays_of_objects_are_pickles_and_other_arrays_are_no_models(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    assert_rejected(tmp_path / "objects.npy", FileUnsafe, "is a pickle")
    assert_rejected(
        tmp_path / "numbers.npy", FormatUnknown, "numbers.npy is a NumPy array, not a model; give a .tflite"
    )


@pytest.mark.parametrize(
    ("name", "body", "error", "parts"),
    [
        ("a.onnx", b"\x08\x07", FormatUnknown, ["a.onnx is not a known model file; give a .tflite"]),
        ("a.pb", b"\x08\x01", FormatUnknown, ["one file of a SavedModel, or a frozen graph; give the SavedModel's"]),
        ("a.zip", zipped({"notes.txt": b"hi"}), FormatUnknown, ["without config.json", "without saved_model.pb"]),
        ("a.tflite", b"", FileDamaged, ["a.tflite is empty"]),
        ("a.tflite", b"\x1c\0\0\0TFL2", FileDamaged, ['does not have "TFL3" at byte 4', "damaged"]),
        ("a.keras", b"QK\x03\x04", FileDamaged, ["does not begin like .keras files", "damaged"]),
        ("a.h5", b"\x88HDF", FileDamaged, ["does not begin like .h5 files"]),
        ("a.zip", b"PK\x03\x04 and no more", FileDamaged, ["truncated or damaged"]),
    ],
)
def test_other_files_are_rejected(
    tmp_path: Path, name: str, body: bytes, error: type[ModelFileError], parts: list[str]
) -> None:
    (tmp_path / name).write_bytes(body)
    assert_rejected(tmp_path / name, error, *parts)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert_rejected(
        tmp_path / "none.tflite", FormatUnknown, "none.tflite cannot be read: No such file or directory; give"
    )
    assert_rejected(
        write_folder(tmp_path / "empty", {"a": b""}), FormatUnknown, "empty has no saved_model.pb and no model"
    )


def test_a_litert_file_is_found_where_tensorflow_serving_looks_for_it(tmp_path: Path) -> None:
    body = model("sigmoid")
    for name, files in {
        "plain": {"model.tflite": body},
        "versions": {"00000123/model.tflite": body, "00000123/notes.txt": b"hi"},
        "packed.zip": zipped({"up/1/model.tflite": body}),
    }.items():
        path = tmp_path / name
        if isinstance(files, bytes):
            path.write_bytes(files)
        else:
            write_folder(path, files)
        assert read_source(path) == Source(name, "litert", body)
    two = write_folder(tmp_path / "two", {"1/model.tflite": body, "2/saved_model.pb": b"graph"})
    assert_rejected(two, FormatUnknown, 'contains 2 models: "1", "2"; add each one alone')
    other = write_folder(tmp_path / "other", {"1/small.tflite": body})
    assert_rejected(other, FormatUnknown, 'it has "1/small.tflite", which can be added alone')
    inside = write_folder(tmp_path / "inside", {"saved_model.pb": b"graph", "assets/model.tflite": body})
    assert read_source(inside).format == "saved_model"


def test_a_truncated_litert_file_is_still_one_or_is_damaged(tmp_path: Path) -> None:
    whole, path = model("sigmoid"), tmp_path / "cut.tflite"
    for size in range(20):
        path.write_bytes(whole[:size])
        if size < 8:
            assert_rejected(path, FileDamaged)
        else:
            assert read_source(path).format == "litert"  # the sandbox detects it


def test_model_files_are_distinguished_from_other_files(tmp_path: Path) -> None:
    keras = zipped({"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b""})
    for name, body in (("a.bin", model("sigmoid")), ("a.keras", keras), ("a", keras), ("a", b"\x89HDF\r\n\x1a\n")):
        assert is_model_file(Path(name), body)
    assert is_model_file(Path("a.zip"), zipped(GRAPH))
    assert is_model_file(Path("a.zip"), zipped(GRAPH)[:-30])  # truncated, which `read_source` reports
    assert is_model_file(Path("a.tflite"), b"cut")
    assert is_model_file(write_folder(tmp_path / "saved", GRAPH))
    assert not is_model_file(tmp_path)
    assert not is_model_file(Path("a.zip"), zipped({"notes.txt": b""}))
    assert not is_model_file(Path("a.json"), b"{")
