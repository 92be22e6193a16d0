"""Reads the footer of a Parquet file, and the column chunks that a shard needs, by byte ranges of one version.

Follows https://github.com/apache/parquet-format (parquet.thrift) in Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepensemble.batch.documents import File
from stepensemble.batch.input.text_stream import TextRefused
from stepensemble.storage.objects import Bucket

MAGIC = b"PAR1"
TAIL_BYTES = 8
"""The footer's length, and `MAGIC`."""

GUESSED_BYTES = 64 * 1024
"""Bytes read from the end of a file: most footers are shorter; a longer one needs a second request."""

NEAR_BYTES = 64 * 1024
"""Chunks with at most so many bytes between them are read with one request."""

CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class Chunk:
    """A leaf column of a row group: its bytes in the file, and its uncompressed size."""

    column: str
    start: int
    end: int
    uncompressed: int


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A number of consecutive rows, with their column chunks."""

    rows: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Footer:
    """The metadata of a file.

    Attributes:
        tail: the file's last bytes, including the footer.
        columns: names, in order; for nested columns the outermost.
        row_groups: in order.
    """

    tail: bytes
    columns: tuple[str, ...]
    row_groups: tuple[RowGroup, ...]

    @property
    def rows(self) -> int:
        """The number of rows in the file."""
        return sum(group.rows for group in self.row_groups)


def read_footer(bucket: Bucket, file: File) -> Footer:
    """Read the footer of a Parquet file.

    Raises:
        TextRefused: the file is not Parquet, or is damaged.
        DatasetChanged: the object has another version now.
    """
    tail = bucket.read_range(file.key, max(0, file.size - GUESSED_BYTES), file.size, file.version, file.version_id)
    if len(tail) < TAIL_BYTES + len(MAGIC) or not tail.endswith(MAGIC):
        raise TextRefused("is not a Parquet file, or is truncated", "write it again")
    length = int.from_bytes(tail[-TAIL_BYTES:-4], "little") + TAIL_BYTES
    if length > file.size:
        raise _damaged()
    if length > len(tail):
        tail = bucket.read_range(file.key, file.size - length, file.size, file.version, file.version_id)
    try:
        found = _Reader(tail, len(tail) - length).read_struct()
        columns = tuple(_name_columns(found[2]))
        groups = tuple(map(_describe, found.get(4, ())))
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise _damaged() from None
    chunks = [chunk for group in groups for chunk in group.chunks]
    if any(not 0 <= chunk.start <= chunk.end <= file.size for chunk in chunks) or any(g.rows < 0 for g in groups):
        raise _damaged()
    return Footer(tail[-length:], columns, groups)


@contextmanager
def fetch_chunks(bucket: Bucket, file: File, footer: Footer, chunks: Sequence[Chunk]) -> Iterator[Path]:
    """Yield a temporary local file with these chunks and the footer; other bytes are a hole in the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        with path.open("wb") as local, ThreadPoolExecutor(CONNECTIONS) as pool:
            local.truncate(file.size)
            local.write(MAGIC)
            ranges = _join(chunks)
            bodies = pool.map(
                lambda span: bucket.read_range(file.key, span[0], span[1], file.version, file.version_id), ranges
            )
            for (start, _), body in zip(ranges, bodies, strict=True):
                local.seek(start)
                local.write(body)
            local.seek(file.size - len(footer.tail))
            local.write(footer.tail)
        yield path


def _damaged() -> TextRefused:
    return TextRefused("has a damaged footer", "write it again")


def _join(chunks: Sequence[Chunk]) -> list[tuple[int, int]]:
    """Return the byte ranges of chunks; neighbouring ones are joined."""
    ranges: list[tuple[int, int]] = []
    for start, end in sorted((chunk.start, chunk.end) for chunk in chunks):
        if ranges and start <= ranges[-1][1] + NEAR_BYTES:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges


def _name_columns(elements: Sequence[dict[int, Any]]) -> Iterator[str]:
    """Yield the names of the root's children; elements are listed depth first, each before its own children."""
    root, *rest = elements
    left = int(root.get(5, 0))
    place = 0
    for _ in range(left):
        yield rest[place][4].decode()
        unseen = 1
        while unseen:
            unseen += int(rest[place].get(5, 0)) - 1
            place += 1


def _describe(group: dict[int, Any]) -> RowGroup:
    return RowGroup(int(group[3]), tuple(_locate(column[3]) for column in group[1]))


def _locate(column: dict[int, Any]) -> Chunk:
    start = min(column[9], column.get(11) or column[9])  # a dictionary page comes first
    return Chunk(column[3][0].decode(), start, start + int(column[7]), int(column[6]))


class _Reader:
    """Decodes Thrift's compact protocol: structs as dictionaries by field number, lists, integers and bytes."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def read_struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._unsigned())
            case 9 | 10:
                head = self._byte()
                size = self._unsigned() if head >> 4 == 15 else head >> 4
                return [self._value(head & 15) for _ in range(size)]
            case 12:
                return self.read_struct()
        raise ValueError(kind)

    def _byte(self) -> int:
        byte = self.data[self.place]
        self.place += 1
        return byte

    def _bytes(self, size: int) -> bytes:
        found = self.data[self.place : self.place + size]
        if len(found) < size:
            raise IndexError
        self.place += size
        return found

    def _unsigned(self) -> int:
        result = shift = 0
        while True:
            byte = self._byte()
            result |= (byte & 127) << shift
            if byte < 128:
                return result
            shift += 7

    def _integer(self) -> int:
        zigzag = self._unsigned()
        return (zigzag >> 1) ^ -(zigzag & 1)
