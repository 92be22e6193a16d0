"""What a model file is, told by its content; its name only helps to say what is wrong with it."""

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
"""At byte 4 of a FlatBuffer stands what it holds."""
ZIP = b"PK\x03\x04"
HDF5 = b"\x89HDF\r\n\x1a\n"
NUMPY = b"\x93NUMPY"
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))

PICKLE_NAMES = frozenset(
    {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin", ".dill", ".cloudpickle", ".sav"}
)
"""Extensions of files that are pickles as a rule; of protocols 0 and 1 nothing else tells."""

EXPECTED: dict[str, bytes] = {".keras": ZIP, ".zip": ZIP, ".h5": HDF5, ".hdf5": HDF5}
"""How files of these extensions begin."""

SAVED_MODEL_FILE, LITERT_FILE = "saved_model.pb", "model.tflite"
MODEL_FILES = (SAVED_MODEL_FILE, LITERT_FILE)
"""What models are called in folders; TensorFlow Serving looks for them under these names."""

MODEL_NAMES = frozenset({".tflite", ".keras", ".h5", ".hdf5"})
"""Extensions that nothing but models has here."""

TAKEN = "give a .tflite, .keras or .h5 file, a SavedModel folder, or a .zip of one"


@dataclass(frozen=True, slots=True)
class Source:
    """A model file.

    Attributes:
        body: the file; of a SavedModel, folder or zip, the archive that `pack_saved_model` makes.
    """

    name: str
    format: Format
    body: bytes


def read_source(path: Path) -> Source:
    """Read a model file or folder.

    Raises:
        FormatUnknown: it is something else, or holds several models.
        FileDamaged: it is truncated, or bits are flipped, as far as its format tells.
        FileUnsafe: it is a pickle, or an archive that harms who unpacks it.
    """
    if path.is_dir():
        return Source(path.name, *_recognize_files(read_folder(path), path.name))
    try:
        size = path.stat().st_size
        if size > LIMITS.size:
            raise FileUnsafe(f"{path.name} is {size // MIB} MiB, more than the {LIMITS.size // MIB} MiB that are read")
        body = path.read_bytes()
    except OSError as error:
        raise FormatUnknown(f"{path} cannot be read: {error.strerror}; {TAKEN}") from None
    return Source(path.name, *recognize_format(body, path.name))


def recognize_format(body: bytes, name: str) -> tuple[Format, bytes]:
    """Tell a file's format; return it with the file, packed anew where it is a SavedModel.

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
        raise _pickle(name)
    if body.startswith(NUMPY):
        # A header names the dtype; that of pickled objects is "|O". Either way it is no model.
        if b"|O" in body[:256]:
            raise _pickle(name)
        raise FormatUnknown(f"{name} is a NumPy array, not a model; {TAKEN}")
    if not body:
        raise FileDamaged(f"{name} is empty; copy it again")
    if extension == ".tflite":
        raise FileDamaged(f'{name} does not have "TFL3" at byte 4, as LiteRT files do: it is damaged, or no such file')
    if not body.startswith(EXPECTED.get(extension, b"")):
        raise FileDamaged(f"{name} does not begin as {extension} files do: it is damaged, or no such file")
    if extension == ".pb":
        raise FormatUnknown(f"{name} is one file of a SavedModel, or a frozen graph; give the SavedModel's folder")
    raise FormatUnknown(f"{name} is no model file that is known; {TAKEN}")


def is_model_file(path: Path, body: bytes = b"") -> bool:
    """Say whether a file or folder is meant as a model, sound or not; `read_source` says what is wrong with it.

    Args:
        path: its name, or the folder itself.
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
        raise _pickle(name)
    if not any(PurePosixPath(entry).name in MODEL_FILES for entry in names):
        raise FormatUnknown(f"{name} is a zip without config.json (of Keras) and without saved_model.pb; {TAKEN}")
    return _recognize_files(read_archive(body), name)


def _recognize_files(files: Mapping[str, bytes], name: str) -> tuple[Format, bytes]:
    """Find the model in a folder, or in a zip of one, as TensorFlow Serving has them: at its top or under a version."""
    model = _find_model(files, name)
    if PurePosixPath(model).name == LITERT_FILE:
        return recognize_format(files[model], f"{name}/{model}")
    return "saved_model", pack_saved_model(files, name)


def _find_model(files: Iterable[str], name: str) -> str:
    """Return the file that marks where a model is.

    Raises:
        FormatUnknown: there is none, or more than one.
    """
    found = [file for file in sorted(files) if PurePosixPath(file).name in MODEL_FILES and "__MACOSX" not in file]
    saved = {PurePosixPath(file).parent for file in found if PurePosixPath(file).name == SAVED_MODEL_FILE}
    # What a SavedModel contains is a part of it.
    found = [file for file in found if not saved & set(PurePosixPath(file).parent.parents)]
    if len(found) > 1:
        raise FormatUnknown(_several([str(PurePosixPath(file).parent) for file in found], name))
    if not found:
        others = [file for file in sorted(files) if PurePosixPath(file).suffix == ".tflite"]
        near = f"; it has {enumerate_values(others)}, which can be added alone" if others else ""
        raise FormatUnknown(f"{name} has no saved_model.pb and no model.tflite{near}; {TAKEN}")
    return found[0]


def pack_saved_model(files: Mapping[str, bytes], name: str) -> bytes:
    """Pack a SavedModel as it is published: what its loader reads, and nothing else, without folders above it.

    Left out are `fingerprint.pb`, which has a random number in it, Keras' metadata, and whatever lies beside the model;
    so the same model has the same digest however it was packed.

    Raises:
        FormatUnknown: there is no SavedModel among the files, or more than one.
    """
    root = str(PurePosixPath(_find_model(files, name)).parent)
    prefix = "" if root == "." else f"{root}/"
    inside = {file.removeprefix(prefix): body for file, body in files.items() if file.startswith(prefix)}
    return write_archive({file: body for file, body in inside.items() if is_saved_model_file(file)})


def _several(roots: Sequence[str], name: str) -> str:
    return (
        f"{name} holds {len(roots)} models: {enumerate_values(roots)}; "
        f"add each by itself, as a folder or zip of its own, with the version it shall have"
    )


def _pickle(name: str) -> FileUnsafe:
    return FileUnsafe(
        f"{show(name)} is a pickle: whoever loads it runs the code in it, so it is never taken, trusted or not; "
        "load it where it was made, and save the model with model.export(folder)"
    )
