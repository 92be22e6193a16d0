"""Zip archives: reads untrusted ones safely, and writes the same bytes for the same files.

Everything that an archive declares is checked before anything is unpacked, and its real size during unpacking. Nothing
is written outside the target folder, and a rejected archive leaves no file.
"""

from __future__ import annotations

import io
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stepensemble.core.errors import FileDamaged, FileUnsafe
from stepensemble.core.problems import show

MIB = 1024 * 1024
CHUNK = MIB
ENTRY = b"PK\x01\x02"
"""The signature of an entry in an archive's directory."""
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip can have; every entry that is written here has it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum sizes of an archive.

    Attributes:
        size: bytes of all files together, unpacked. FlatBuffers and protocol buffers have at most 2 GiB, and a model
            that a Lambda loads within seconds is much smaller.
        entries: number of files. A SavedModel has a few files and its assets; a list of millions of files is an attack.
        ratio: unpacked to packed bytes. Weights hardly shrink, text shrinks ten times, zeros a thousand times.
        ratio_from: unpacked bytes up to which the ratio is not checked: they always fit, and an untrained layer is
            zeros.
        name: bytes of a name with its folders; file systems allow 255 for each part, and some 260 in all.
    """

    size: int = 2048 * MIB
    entries: int = 10_000
    ratio: int = 100
    ratio_from: int = 64 * MIB
    name: int = 240


LIMITS = Limits()

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    OverflowError,
    UnicodeError,
    ValueError,
)
"""The errors that `zipfile` raises if bytes are missing or flipped."""


def read_archive(body: bytes, limits: Limits = LIMITS) -> dict[str, bytes]:
    """Return an archive's files, by name.

    Raises:
        FileUnsafe: it would write outside its folder, fill memory or disk, or hide files.
        FileDamaged: it is truncated, or bits are flipped.
    """
    archive, entries = _open(body, limits)
    return {entry.filename: b"".join(_read(archive, entry)) for entry in entries}


def list_archive(body: bytes, limits: Limits = LIMITS) -> list[str]:
    """Return the names of an archive's files, checked as `read_archive` does, without unpacking."""
    return [entry.filename for entry in _open(body, limits)[1]]


def measure_archive(body: bytes, limits: Limits = LIMITS) -> int:
    """Return the bytes of an archive's files together, checked as `read_archive` does, without unpacking."""
    return sum(entry.file_size for entry in _open(body, limits)[1])


def extract_archive(
    body: bytes, target: Path, limits: Limits = LIMITS, keep: Callable[[str], bool] = lambda _: True
) -> None:
    """Unpack an archive into a new folder that only its owner may enter.

    Args:
        body: the archive.
        target: the folder.
        limits: maximum sizes of the archive.
        keep: returns whether to unpack the file of a name.

    Raises:
        FileUnsafe, FileDamaged: see `read_archive`; the folder then does not exist.
    """
    archive, entries = _open(body, limits)
    target.mkdir(mode=0o700)
    try:
        for entry in entries:
            if not keep(entry.filename):
                continue
            path = target / entry.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                for chunk in _read(archive, entry):
                    file.write(chunk)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """Pack files into an archive: sorted, with one date, not compressed, so that the same files give the same bytes.

    They are not compressed, since a compressor's output depends on its version, and weights hardly shrink.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def is_saved_model_file(name: str) -> bool:
    """Return whether a SavedModel's loader needs a file, named relative to the SavedModel's folder.

    `saved_model.pbtxt` and `saved_model.cpb` are left out, since the loader may read either of them instead of
    `saved_model.pb`, and so are notes on how the model was made.
    """
    return name == "saved_model.pb" or name.startswith(("variables/", "assets/"))


def read_folder(folder: Path, limits: Limits = LIMITS) -> dict[str, bytes]:
    """Return a folder's files by name, with the same limits and rules as an archive's.

    Raises:
        FileUnsafe: it contains a link or a device, or is too large.
        FileDamaged: a file cannot be read.
    """
    files: dict[str, bytes] = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        try:
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode):
                continue
            if not stat.S_ISREG(found.st_mode):
                raise FileUnsafe(f"{show(name)} is a link or a device; put the file itself there")
            size += found.st_size
            if size > limits.size or len(files) == limits.entries:
                raise FileUnsafe(_describe_excess(f"{folder.name} has", limits))
            files[name] = path.read_bytes()
        except OSError as error:
            raise FileDamaged(f"{show(name)} cannot be read: {error.strerror}") from None
    return files


def _open(body: bytes, limits: Limits) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """Open an archive and check everything that it declares; return it with its files."""
    # Counted before zipfile makes an object of each. A file's data may contain the signature by chance a few times.
    if body.count(ENTRY) > limits.entries:
        raise FileUnsafe(_describe_excess("the archive has", limits))
    try:
        archive = zipfile.ZipFile(io.BytesIO(body))
        entries = [entry for entry in archive.infolist() if not _is_folder(entry, limits)]
        if body.count(ENTRY, archive.start_dir) != len(archive.infolist()):
            raise zipfile.BadZipFile("an entry of its directory hides others")
    except _BROKEN as error:
        raise FileDamaged(f"the archive is truncated or damaged: {error}; copy it again") from None
    _check_names([entry.filename for entry in entries])
    _check_sizes(entries, len(body), limits)
    return archive, entries


def _is_folder(entry: zipfile.ZipInfo, limits: Limits) -> bool:
    """Check one entry; return whether it is a folder."""
    name, folder = entry.orig_filename, entry.is_dir()
    reason = None
    mode = entry.external_attr >> 16
    if len(name.encode("utf-8", "surrogateescape")) > limits.name:
        reason = f"its name is longer than {limits.name} bytes"
    elif "\\" in name or "\0" in name or not name.isprintable():
        reason = "its name has a backslash or an unprintable character"
    elif name.startswith("/") or re.match(r"[A-Za-z]:", name):
        reason = "its name is an absolute path"
    elif any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        reason = "its name leads out of the archive's folder, or is not normalized"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFDIR if folder else stat.S_IFREG):
        reason = "it is a link or a device, not a file"
    elif entry.flag_bits & 0x1:
        reason = "it is encrypted"
    elif folder and entry.file_size:
        reason = "it is a folder with content"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = "it is neither stored nor deflated"
    if reason is not None:
        raise FileUnsafe(f"the archive's entry {show(name)} is rejected: {reason}; make the archive again without it")
    return folder


def _check_names(names: list[str]) -> None:
    """Reject names of the same file, also on file systems that ignore case."""
    seen: set[str] = set()
    for name in names:
        folded = name.casefold()
        if folded in seen:
            raise FileUnsafe(
                f"the archive has {show(name)} twice, and readers differ on which one they use; make it again"
            )
        seen.add(folded)
    for name in names:
        for slash in (at for at, letter in enumerate(name) if letter == "/"):
            if name[:slash].casefold() in seen:
                raise FileUnsafe(f"the archive has {show(name[:slash])} as a file and as a folder; make it again")


def _check_sizes(entries: list[zipfile.ZipInfo], packed: int, limits: Limits) -> None:
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > limits.size or len(entries) > limits.entries:
        raise FileUnsafe(_describe_excess("the archive has", limits))
    if sum(entry.compress_size for entry in entries) > packed:
        raise FileUnsafe("the archive's entries overlap: it unpacks the same bytes again and again")
    if unpacked > limits.ratio_from and unpacked > limits.ratio * packed:
        raise FileUnsafe(
            f"the archive unpacks to {unpacked // MIB} MiB, more than {limits.ratio} times its size; "
            "store its files without compression if they are correct"
        )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield an entry's content. `zipfile` stops at the declared size, and checks the CRC."""
    size = 0
    try:
        with archive.open(entry) as file:
            while chunk := file.read(CHUNK):
                size += len(chunk)
                yield chunk
    except _BROKEN as error:
        name = show(entry.filename)
        raise FileDamaged(f"the archive's entry {name} is truncated or damaged: {error}; copy it again") from None
    if size != entry.file_size:
        raise FileDamaged(f"the archive's entry {show(entry.filename)} is shorter than declared; copy it again")


def _describe_excess(subject: str, limits: Limits) -> str:
    return f"{subject} more than {limits.size // MIB} MiB or {limits.entries:,} files, the limits for a model"
