"""Zip archives: read from strangers, and written so that the same files always give the same bytes.

Everything that an archive says of itself is checked before anything is unpacked, and its real size while it is. Nothing
is written outside the target, and a refused archive leaves nothing behind.
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
"""What every entry of an archive's directory begins with."""
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""What a zip can say at the earliest; so is every entry of ours dated."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold.

    Attributes:
        size: bytes of all files together, unpacked. FlatBuffers and protocol buffers end at 2 GiB, and no model that a
            Lambda loads within seconds comes near.
        entries: a SavedModel is a handful of files and its assets; reading a list of millions is an attack by itself.
        ratio: unpacked to packed bytes. Weights hardly shrink, text ten times, nothing but zeros a thousand times.
        ratio_from: bytes up to which the ratio does not matter: so much fits anywhere, and an untrained layer is zeros.
        name: bytes of one name, its folders included; file systems end at 255 for each part, and some at 260 for all.
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
"""What `zipfile` raises where bytes are missing or flipped."""


def read_archive(body: bytes, limits: Limits = LIMITS) -> dict[str, bytes]:
    """Return an archive's files, by name.

    Raises:
        FileUnsafe: it would write elsewhere, fill memory or disk, or hide something.
        FileDamaged: it is truncated, or bits are flipped.
    """
    archive, entries = _open(body, limits)
    return {entry.filename: b"".join(_read(archive, entry)) for entry in entries}


def list_archive(body: bytes, limits: Limits = LIMITS) -> list[str]:
    """Return the names of an archive's files, checked as `read_archive` does, without unpacking."""
    return [entry.filename for entry in _open(body, limits)[1]]


def measure_archive(body: bytes, limits: Limits = LIMITS) -> int:
    """Return the bytes that an archive's files come to, checked as `read_archive` does, without unpacking."""
    return sum(entry.file_size for entry in _open(body, limits)[1])


def extract_archive(
    body: bytes, target: Path, limits: Limits = LIMITS, keep: Callable[[str], bool] = lambda _: True
) -> None:
    """Unpack an archive into a folder that is not there yet; only its owner may enter it.

    Args:
        body: the archive.
        target: the folder.
        limits: what the archive may hold.
        keep: whether a file is unpacked, by its name.

    Raises:
        FileUnsafe, FileDamaged: see `read_archive`; the folder is not there then.
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
    """Pack files into an archive: sorted, dated alike, not compressed, so that the same files give the same bytes.

    Not compressed, since what a compressor makes depends on its version, and weights hardly shrink.
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
    """Return whether a file, named from a SavedModel's folder on, is one that its loader needs.

    Not `saved_model.pbtxt` and `saved_model.cpb`, of which the loader may read one for the other, nor notes on how the
    model was made.
    """
    return name == "saved_model.pb" or name.startswith(("variables/", "assets/"))


def read_folder(folder: Path, limits: Limits = LIMITS) -> dict[str, bytes]:
    """Return a folder's files by name, under the same limits and rules as an archive's.

    Raises:
        FileUnsafe: it holds a link or a device, or is too large.
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
                raise FileUnsafe(_too_much(f"{folder.name} holds", limits))
            files[name] = path.read_bytes()
        except OSError as error:
            raise FileDamaged(f"{show(name)} cannot be read: {error.strerror}") from None
    return files


def _open(body: bytes, limits: Limits) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """Open an archive and check all that it says of itself; return it with its files."""
    # Counted before zipfile makes an object of each; the signature in somebody's data by chance does no harm.
    if body.count(ENTRY) > limits.entries:
        raise FileUnsafe(_too_much("the archive holds", limits))
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
        reason = "its name has a backslash or a character that is not printed"
    elif name.startswith("/") or re.match(r"[A-Za-z]:", name):
        reason = "its name is an absolute path"
    elif any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        reason = "its name leads out of the archive's own folder, or nowhere"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFDIR if folder else stat.S_IFREG):
        reason = "it is a link or a device, not a file"
    elif entry.flag_bits & 0x1:
        reason = "it is encrypted"
    elif folder and entry.file_size:
        reason = "it is a folder with content"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = "it is neither stored nor deflated"
    if reason is not None:
        raise FileUnsafe(f"the archive's entry {show(name)} is refused: {reason}; make the archive again without it")
    return folder


def _check_names(names: list[str]) -> None:
    """Refuse names that meet in one place, also on file systems that take upper and lower case for the same."""
    seen: set[str] = set()
    for name in names:
        folded = name.casefold()
        if folded in seen:
            raise FileUnsafe(f"the archive has {show(name)} twice, and readers differ on which counts; make it again")
        seen.add(folded)
    for name in names:
        for place in (at for at, letter in enumerate(name) if letter == "/"):
            if name[:place].casefold() in seen:
                raise FileUnsafe(f"the archive has {show(name[:place])} as a file and as a folder; make it again")


def _check_sizes(entries: list[zipfile.ZipInfo], packed: int, limits: Limits) -> None:
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > limits.size or len(entries) > limits.entries:
        raise FileUnsafe(_too_much("the archive holds", limits))
    if sum(entry.compress_size for entry in entries) > packed:
        raise FileUnsafe("the archive's entries overlap: it unpacks the same bytes again and again")
    if unpacked > limits.ratio_from and unpacked > limits.ratio * packed:
        raise FileUnsafe(
            f"the archive unpacks to {unpacked // MIB} MiB, more than {limits.ratio} times its size; "
            "store the files in it without compression, if they are what they should be"
        )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield an entry's content. `zipfile` ends at the size that was declared, and checks the CRC there."""
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
        raise FileDamaged(f"the archive's entry {show(entry.filename)} is shorter than it says; copy it again")


def _too_much(who: str, limits: Limits) -> str:
    return f"{who} more than {limits.size // MIB} MiB or {limits.entries:,} files, more than a model's files ever are"
