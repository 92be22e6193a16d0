"""A dataset on this machine, and its upload into the data bucket, under a prefix made from its content."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stepensemble.storage.keys import DATASETS
from stepensemble.storage.objects import PIECE_BYTES, Bucket

DIGITS = 16
"""Hex digits of a dataset's digest in its prefix."""


@dataclass(frozen=True)
class LocalDataset:
    """A file, or a folder with its files and those of the folders below.

    Attributes:
        files: the files, sorted by name, without those whose name begins with a dot.
    """

    path: Path
    files: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """The files' names in the dataset."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return [file.relative_to(folder).as_posix() for file in self.files]

    @cached_property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the files' names and contents, in hex."""
        digest = hashlib.sha256()
        for name, file in zip(self.names, self.files, strict=True):
            with file.open("rb") as content:
                inner = hashlib.file_digest(content, "sha256")
            digest.update(f"{name}\n{inner.hexdigest()}\n".encode())
        return digest.hexdigest()

    @property
    def prefix(self) -> str:
        """The prefix of its files in the data bucket."""
        return f"{DATASETS}{self.digest[:DIGITS]}/"

    @property
    def key(self) -> str:
        """The key of a single file; the prefix of a folder."""
        return self.prefix if self.path.is_dir() else self.prefix + self.path.name


def find_local(path: Path) -> LocalDataset:
    """Find the files of a dataset on this machine; `path` must exist."""
    if path.is_file():
        return LocalDataset(path, (path,))
    found = (file for file in path.rglob("*") if file.is_file())
    visible = (file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts))
    return LocalDataset(path, tuple(sorted(visible)))


def upload_dataset(dataset: LocalDataset, bucket: Bucket, sent: Callable[[int], None]) -> int:
    """Upload the files that the bucket does not have yet, and return how many were uploaded.

    Args:
        dataset: the dataset on this machine.
        bucket: the data bucket.
        sent: called with a number of bytes as they are uploaded, including those of files that are there already.
    """
    uploaded = 0
    for name, file in zip(dataset.names, dataset.files, strict=True):
        size = file.stat().st_size
        if bucket.exists(dataset.prefix + name, size):
            sent(size)
            continue
        with _opened(file, size) as body:
            bucket.upload(dataset.prefix + name, body, sent)
        uploaded += 1
    return uploaded


@contextmanager
def _opened(file: Path, size: int) -> Iterator[bytes | mmap.mmap]:
    """Yield a file's content, of a large file without reading it into memory."""
    if size <= PIECE_BYTES:
        yield file.read_bytes()
        return
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as body:
        yield body
