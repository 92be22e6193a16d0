"""Streams the text of a dataset's file in pieces: read ahead, decompressed, and in an encoding that can be split.

An encoding can be split at any record if quotes, separators and line ends are single bytes without another meaning:
UTF-8, and all single-byte encodings that include ASCII. Text in other encodings (UTF-16, UTF-32, Shift JIS, GBK) is
converted to UTF-8, and read as a whole, like gzip.
"""

from __future__ import annotations

import codecs
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain

from stepensemble.batch.documents import File, Options
from stepensemble.storage.objects import Bucket

FIRST_PIECE_BYTES = 64 * 1024
"""Bytes of the first piece, which is enough for most headers."""

PIECE_BYTES = 4 * 1024 * 1024
AHEAD = 4
"""Pieces that are requested while one is processed: one connection to S3 is slower than NumPy."""

WHOLE_SHARDS = 8
"""A file that cannot be split has, decompressed, at most the bytes of so many shards."""

MARKS = (  # those of UTF-32 first: one of them begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LONGEST_MARK = 4

FOREIGN = "日表한é"
"""Shift JIS, and encodings with shift states, encode some of these characters with ASCII bytes."""


class TextRefused(Exception):
    """A text cannot be read.

    Attributes:
        message: the problem.
        remedy: how to fix it.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.message, self.remedy = message, remedy


@dataclass(frozen=True, slots=True)
class Text:
    """A file's text.

    Attributes:
        pieces: its bytes in order, without a byte order mark; iterating may raise `TextRefused`.
        encoding: of the pieces; one that can be split.
        start: the position in the file where the pieces begin.
        whole: whether the pieces are not the file's own bytes, so that it must be read from its beginning.
    """

    pieces: Iterator[bytes]
    encoding: str
    start: int
    whole: bool


def open_text(bucket: Bucket, file: File, options: Options) -> Text:
    """Open a file's text.

    Raises:
        TextRefused: the file has a name for gzip and is not gzip, or it is too large to be read as a whole.
        DatasetChanged: the object has another version now.
    """
    most = WHOLE_SHARDS * options.shard_size
    packed = file.compression == "gzip"
    pieces = read_pieces(bucket, file)
    if packed:
        pieces = decompress_gzip(pieces, most)
    begin = b""
    while len(begin) < LONGEST_MARK and (piece := next(pieces, b"")):
        begin += piece
    encoding, skipped = detect_encoding(begin, options.encoding)
    pieces = chain([begin[skipped:]], pieces)
    if can_be_split(encoding):
        return Text(pieces, encoding, skipped, whole=packed)
    if file.size > most:
        raise TextRefused(
            f"is {encoding} and has {file.size:,} bytes; text that cannot be split may have {most:,}",
            "write it as UTF-8, or as several files, or set a larger shard size",
        )
    return Text(_transcode(pieces, encoding), "utf-8", 0, whole=True)


def read_pieces(bucket: Bucket, file: File) -> Iterator[bytes]:
    """Yield a file's bytes: first a small piece, then larger ones, some of which are read ahead."""
    if file.size:
        yield bucket.read_range(file.key, 0, min(FIRST_PIECE_BYTES, file.size), file.version, file.version_id)
    requested: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for start in range(FIRST_PIECE_BYTES, file.size, PIECE_BYTES):
            end = min(start + PIECE_BYTES, file.size)
            requested.append(pool.submit(bucket.read_range, file.key, start, end, file.version, file.version_id))
            if len(requested) > AHEAD:
                yield requested.popleft().result()
        while requested:
            yield requested.popleft().result()


def decompress_gzip(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    """Decompress gzip with one or several members, in pieces of bounded size.

    Args:
        pieces: of the compressed bytes.
        most: decompressed bytes at most.

    Raises:
        TextRefused: there are more bytes, or the file is not gzip, damaged, or truncated.
    """
    left = most
    engine = zlib.decompressobj(wbits=31)
    begun = False
    for piece in chain(pieces, [b""]):  # the empty piece at the end flushes the decompressor
        tail = piece
        while True:
            if engine.eof:
                tail = tail.lstrip(b"\0")  # some tools pad with zeros
                if not tail:
                    break
                engine = zlib.decompressobj(wbits=31)
            try:
                out = engine.decompress(tail, PIECE_BYTES)
            except zlib.error:
                raise TextRefused("is not gzip, or is damaged", "write it again") from None
            begun = begun or bool(tail)
            left -= len(out)
            if left < 0:
                raise TextRefused(
                    f"has more than {most:,} bytes when it is decompressed, and gzip cannot be split",
                    "write it uncompressed, or as several files, or set a larger shard size",
                )
            if out:
                yield out
            tail = engine.unused_data if engine.eof else engine.unconsumed_tail
            if not tail and not out:
                break
    if begun and not engine.eof:
        raise TextRefused("is truncated gzip", "write it again")


def detect_encoding(begin: bytes, encoding: str) -> tuple[str, int]:
    """Return the encoding of a text, from its byte order mark if it has one, and the length of that mark."""
    for mark, name in MARKS:
        if begin.startswith(mark):
            return name, len(mark)
    return codecs.lookup(encoding).name.replace("utf-8-sig", "utf-8"), 0


@cache
def can_be_split(encoding: str) -> bool:
    """Return whether, in an encoding, every ASCII character is its own byte and that byte has no other meaning."""
    if codecs.lookup(encoding).name == "utf-8":
        return True
    plain = bytes(range(128))
    foreign = FOREIGN.encode(encoding, "ignore")
    if plain.decode(encoding, "ignore") != plain.decode() or any(byte in plain for byte in foreign):
        return False
    return all(len(bytes([byte, byte]).decode(encoding, "replace")) == 2 for byte in range(256))


def is_text_encoding(name: str) -> bool:
    """Return whether Python has a text encoding with this name."""
    try:
        b"a".decode(name)
    except UnicodeDecodeError:
        return True
    except (LookupError, ValueError):  # ValueError: a name with a zero in it
        return False
    return True


def _transcode(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for piece in pieces:
            yield decoder.decode(piece).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError:
        raise TextRefused(f"is not entirely {encoding}", "write it again, or set its encoding") from None
