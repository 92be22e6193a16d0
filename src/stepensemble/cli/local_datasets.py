"""A dataset on this machine: brought into the data bucket, under a name that says what is in it."""

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
"""Of a dataset's digest, in its prefix."""


@dataclass(frozen=True)
class LocalDataset:
    """A file, or a folder with files in it or in folders below.

    Attributes:
        files: all of them, in the order of their names; those that begin with a dot are left out.
    """

    path: Path
    files: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """What the files are called in the dataset."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return [file.relative_to(folder).as_posix() for file in self.files]

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names and contents."""
        digest = hashlib.sha256()
        for name, file in zip(self.names, self.files, strict=True):
            with file.open("rb") as content:
                inner = hashlib.file_digest(content, "sha256")
            digest.update(f"{name}\n{inner.hexdigest()}\n".encode())
        return digest.hexdigest()

    @property
    def prefix(self) -> str:
        """Under which its files lie in the data bucket."""
        return f"{DATASETS}{self.digest[:DIGITS]}/"

    @property
    def key(self) -> str:
        """Of a file its key, of a folder the prefix."""
        return self.prefix if self.path.is_dir() else self.prefix + self.path.name


def find_local(path: Path) -> LocalDataset:
    """Find the files of a dataset on this machine; `path` is there."""
    if path.is_file():
        return LocalDataset(path, (path,))
    found = (file for file in path.rglob("*") if file.is_file())
    shown = (file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts))
    return LocalDataset(path, tuple(sorted(shown)))


def upload_dataset(dataset: LocalDataset, bucket: Bucket, sent: Callable[[int], None]) -> int:
    """Bring into a bucket what is not there yet, and return how many files that was.

    Args:
        dataset: on this machine.
        bucket: with the data.
        sent: told of bytes, those that are there already included.
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
    """Open a file, a large one without reading it into memory."""
    if size <= PIECE_BYTES:
        yield file.read_bytes()
        return
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as body:
        yield body
