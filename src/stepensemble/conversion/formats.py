"""Recognizes the format of a model file by its content; the name is used only for error messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from stepensemble.core.errors import FileDamaged, FileUnsafe, FormatUnknown, ModelFileError
from stepensemble.core.problems import enumerate_values, show
from stepensemble.runtimes.archives import (
    LIMITS,
    MIB,
    is_saved_model_file,
    list_archive,
    read_archive,
    read_folder,
    write_archive,
)

Format: TypeAlias = Literal["litert", "keras", "h5", "saved_model"]

LITERT = b"TFL3"
"""The file identifier, at byte 4 of a FlatBuffer."""
ZIP = b"PK\x03\x04"
HDF5 = b"\x89HDF\r\n\x1a\n"
NUMPY = b"\x93NUMPY"
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))

PICKLE_NAMES = frozenset(
    {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin", ".dill", ".cloudpickle", ".sav"}
)
"""Extensions of files that usually are pickles; pickles of protocols 0 and 1 cannot be recognized otherwise."""

EXPECTED: dict[str, bytes] = {".keras": ZIP, ".zip": ZIP, ".h5": HDF5, ".hdf5": HDF5}
"""The first bytes of files with these extensions."""

SAVED_MODEL_FILE, LITERT_FILE = "saved_model.pb", "model.tflite"
MODEL_FILES = (SAVED_MODEL_FILE, LITERT_FILE)
"""The names of models in folders, the same as for TensorFlow Serving."""

MODEL_NAMES = frozenset({".tflite", ".keras", ".h5", ".hdf5"})
"""Extensions that only models have here."""

ACCEPTED = "give a .tflite, .keras or .h5 file, a SavedModel folder, or a .zip of one"


@dataclass(frozen=True, slots=True)
class Source:
    """A model file.

    Attributes:
        body: the file's content; for a SavedModel, the archive that `pack_saved_model` writes.
    """

    name: str
    format: Format
    body: bytes


def read_source(path: Path) -> Source:
    """Read a model file or folder.

    Raises:
        FormatUnknown: it has another format, or contains several models.
        FileDamaged: it is truncated, or bits are flipped, as far as its format allows to detect that.
        FileUnsafe: it is a pickle, or an archive that is unsafe to unpack.
    """
    if path.is_dir():
        return Source(path.name, *_recognize_files(read_folder(path), path.name))
    try:
        size = path.stat().st_size
        if size > LIMITS.size:
            raise FileUnsafe(f"{path.name} is {size // MIB} MiB, more than the {LIMITS.size // MIB} MiB that are read")
        body = path.read_bytes()
    except OSError as error:
        raise FormatUnknown(f"{path} cannot be read: {error.strerror}; {ACCEPTED}") from None
    return Source(path.name, *recognize_format(body, path.name))


def recognize_format(body: bytes, name: str) -> tuple[Format, bytes]:
    """Return a file's format and content; a SavedModel is packed again.

    Raises: see `read_source`.
    """
    extension = PurePosixPath(name).suffix.lower()
    if body[4:8] == LITERT:
        return "litert", body
    if body.startswith(HDF5):
        return "h5", body
    if body.startswith(ZIP):
        return _recognize_zip(body, name)
    if body.startswith(PICKLES) or extension in PICKLE_NAMES:
        raise _pickle_error(name)
    raise _unknown_format_error(body, name, extension)


def _unknown_format_error(body: bytes, name: str, extension: str) -> ModelFileError:
    if body.startswith(NUMPY):
        # The header has the dtype, which is "|O" for pickled objects. A NumPy array is not a model in either case.
        return (
            _pickle_error(name)
            if b"|O" in body[:256]
            else FormatUnknown(f"{name} is a NumPy array, not a model; {ACCEPTED}")
        )
    if not body:
        return FileDamaged(f"{name} is empty; copy it again")
    if extension == ".tflite":
        return FileDamaged(f'{name} does not have "TFL3" at byte 4 like LiteRT files: it is damaged or another file')
    if not body.startswith(EXPECTED.get(extension, b"")):
        return FileDamaged(f"{name} does not begin like {extension} files: it is damaged or another file")
    if extension == ".pb":
        return FormatUnknown(f"{name} is one file of a SavedModel, or a frozen graph; give the SavedModel's folder")
    return FormatUnknown(f"{name} is not a known model file; {ACCEPTED}")


def is_model_file(path: Path, body: bytes = b"") -> bool:
    """Return whether a file or folder is a model, valid or not; `read_source` raises if it is not valid.

    Args:
        path: the file's name, or the folder itself.
        body: the file's content.
    """
    if path.is_dir():
        return any((path / name).is_file() for name in MODEL_FILES)
    if body.startswith(ZIP):
        try:
            _recognize_zip(body, path.name)
        except FormatUnknown:
            return False
        except ModelFileError:
            return True
        return True
    return body[4:8] == LITERT or body.startswith(HDF5) or path.suffix.lower() in MODEL_NAMES


def _recognize_zip(body: bytes, name: str) -> tuple[Format, bytes]:
    names = list_archive(body)
    if {"config.json", "metadata.json"} <= set(names):
        return "keras", body
    if any(PurePosixPath(entry).suffix.lower() in PICKLE_NAMES for entry in names):
        raise _pickle_error(name)
    if not any(PurePosixPath(entry).name in MODEL_FILES for entry in names):
        raise FormatUnknown(f"{name} is a zip without config.json (of Keras) and without saved_model.pb; {ACCEPTED}")
    return _recognize_files(read_archive(body), name)


def _recognize_files(files: Mapping[str, bytes], name: str) -> tuple[Format, bytes]:
    """Find the model in a folder or zip: at its top, or in a version folder as TensorFlow Serving has them."""
    model = _find_model(files, name)
    if PurePosixPath(model).name == LITERT_FILE:
        return recognize_format(files[model], f"{name}/{model}")
    return "saved_model", pack_saved_model(files, name)


def _find_model(files: Iterable[str], name: str) -> str:
    """Return the file that marks a model.

    Raises:
        FormatUnknown: there is none, or more than one.
    """
    found = [file for file in sorted(files) if PurePosixPath(file).name in MODEL_FILES and "__MACOSX" not in file]
    saved = {PurePosixPath(file).parent for file in found if PurePosixPath(file).name == SAVED_MODEL_FILE}
    # Model files inside a SavedModel belong to it.
    found = [file for file in found if not saved & set(PurePosixPath(file).parent.parents)]
    if len(found) > 1:
        raise FormatUnknown(_describe_several([str(PurePosixPath(file).parent) for file in found], name))
    if not found:
        others = [file for file in sorted(files) if PurePosixPath(file).suffix == ".tflite"]
        near = f"; it has {enumerate_values(others)}, which can be added alone" if others else ""
        raise FormatUnknown(f"{name} has no saved_model.pb and no model.tflite{near}; {ACCEPTED}")
    return found[0]


def pack_saved_model(files: Mapping[str, bytes], name: str) -> bytes:
    """Pack a SavedModel for publishing: only the files that its loader reads, without folders above it.

    It leaves out `fingerprint.pb`, which contains a random number, Keras' metadata, and other files, so that the same
    model always has the same digest.

    Raises:
        FormatUnknown: there is no SavedModel among the files, or more than one.
    """
    root = str(PurePosixPath(_find_model(files, name)).parent)
    prefix = "" if root == "." else f"{root}/"
    inside = {file.removeprefix(prefix): body for file, body in files.items() if file.startswith(prefix)}
    return write_archive({file: body for file, body in inside.items() if is_saved_model_file(file)})


def _describe_several(roots: Sequence[str], name: str) -> str:
    return (
        f"{name} contains {len(roots)} models: {enumerate_values(roots)}; "
        "add each one alone, as a folder or zip, with its version"
    )


def _pickle_error(name: str) -> FileUnsafe:
    return FileUnsafe(
        f"{show(name)} is a pickle: loading it runs the code in it, so it is never accepted, trusted or not; "
        "load it where it was made, and save the model with model.export(folder)"
    )
