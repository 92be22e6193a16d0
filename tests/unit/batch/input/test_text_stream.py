from __future__ import annotations

import gzip
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake import DATASET, gzip_bytes, make_bucket
from stepensemble.batch.documents import Options
from stepensemble.batch.input.datasets import find_files
from stepensemble.batch.input.text_stream import (
    FIRST_PIECE_BYTES,
    PIECE_BYTES,
    TextRefused,
    can_be_split,
    decompress_gzip,
    detect_encoding,
    is_text_encoding,
    open_text,
    read_pieces,
)
from stepensemble.core.errors import DatasetChanged

PLENTY = 10**9


@pytest.mark.parametrize(
    "size", [0, 1, FIRST_PIECE_BYTES, FIRST_PIECE_BYTES + 1, FIRST_PIECE_BYTES + 6 * PIECE_BYTES + 7]
)
def test_pieces_are_the_file(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    bucket = make_bucket({"a.csv": body})
    (file,) = find_files(bucket, DATASET)
    pieces = list(read_pieces(bucket, file))
    assert b"".join(pieces) == body
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)


def test_reading_stops_if_a_file_is_changed() -> None:
    bucket = make_bucket({"a.csv": b"x" * (FIRST_PIECE_BYTES + 1)})
    (file,) = find_files(bucket, DATASET)
    pieces = read_pieces(bucket, file)
    next(pieces)
    bucket.write("day/a.csv", b"y" * (FIRST_PIECE_BYTES + 1))
    with pytest.raises(DatasetChanged):
        next(pieces)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 50), st.integers(0, 9))
def test_gzip_of_several_members_in_any_pieces_is_their_texts(members: list[bytes], size: int, zeros: int) -> None:
    body = b"".join(map(gzip.compress, members)) + bytes(zeros)
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    assert b"".join(decompress_gzip(pieces, PLENTY)) == b"".join(members)


def test_an_empty_file_is_empty_gzip() -> None:
    assert list(decompress_gzip(iter([]), PLENTY)) == []


def test_every_truncation_of_gzip_is_found() -> None:
    body = gzip_bytes("a,b\n1,2\n" * 9)
    for size in range(1, len(body)):
        with pytest.raises(TextRefused, match="truncated"):
            list(decompress_gzip(iter([body[:size]]), PLENTY))


def test_damaged_gzip_is_refused() -> None:
    body = bytearray(gzip_bytes("a,b\n1,2\n"))
    body[-6] ^= 1  # of the checksum
    with pytest.raises(TextRefused, match="damaged"):
        list(decompress_gzip(iter([bytes(body)]), PLENTY))
    with pytest.raises(TextRefused, match="is not gzip"):
        list(decompress_gzip(iter([b"a,b\n1,2\n"]), PLENTY))


def test_decompression_stops_at_the_size_limit() -> None:
    bomb = gzip_bytes(bytes(50 * PIECE_BYTES))
    assert len(bomb) < PIECE_BYTES
    most = 3 * PIECE_BYTES
    pieces = decompress_gzip(iter([bomb]), most)
    assert sum(map(len, islice(pieces, 3))) == most
    with pytest.raises(TextRefused, match=r"more than 12,582,912 bytes when it is decompressed"):
        next(pieces)


@pytest.mark.parametrize(
    ("encoding", "cuttable"),
    [
        ("utf-8", True),
        ("ascii", True),
        ("latin-1", True),
        ("cp1252", True),
        ("koi8-r", True),
        ("mac-roman", True),
        ("utf-16", False),
        ("utf-16-le", False),
        ("utf-32", False),
        ("utf-7", False),
        ("shift_jis", False),
        ("gb18030", False),
        ("big5", False),
        ("iso2022_jp", False),
        ("iso2022_kr", False),
        ("hz", False),
        ("euc_kr", False),
        ("cp037", False),  # EBCDIC: one byte a character, but no ASCII
    ],
)
def test_encodings_that_can_be_split_use_ascii_bytes_for_ascii_characters_only(encoding: str, cuttable: bool) -> None:
    assert can_be_split(encoding) is cuttable


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "latin-1", "shift_jis"])
def test_a_byte_order_mark_decides_the_encoding(encoding: str) -> None:
    text = "é,b\n" if encoding != "shift_jis" else "日,b\n"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    bucket = make_bucket({"a.csv": (mark + text).encode(encoding)})
    (file,) = find_files(bucket, DATASET)
    named = encoding if encoding in ("latin-1", "shift_jis") else "cp1252"
    opened = open_text(bucket, file, Options(encoding=named))
    assert b"".join(opened.pieces).decode(opened.encoding) == text
    assert opened.whole is (encoding[:5] in ("utf-1", "utf-3", "shift"))
    assert opened.start == (3 if encoding == "utf-8-sig" else 0)


def test_text_that_cannot_be_split_has_a_size_limit() -> None:
    bucket = make_bucket({"a.csv": ("a\n" * 20_000).encode("utf-16")})
    (file,) = find_files(bucket, DATASET)
    with pytest.raises(
        TextRefused, match=r"is utf-16-le and has 80,002 bytes; text that cannot be split may have 8,192"
    ):
        open_text(bucket, file, Options(shard_size=1024))


def test_invalid_text_in_an_encoding_that_cannot_be_split_is_rejected() -> None:
    bucket = make_bucket({"a.csv": "a\n".encode("utf-16") + b"x"})
    (file,) = find_files(bucket, DATASET)
    with pytest.raises(TextRefused, match="is not entirely utf-16-le"):
        list(open_text(bucket, file, Options()).pieces)


def test_names_of_encodings() -> None:
    assert is_text_encoding("latin-1")
    assert not is_text_encoding("base64")
    assert not is_text_encoding("nonsense")
    assert not is_text_encoding("a\0b")
    assert detect_encoding(b"a", "UTF8") == ("utf-8", 0)
    assert detect_encoding(b"", "latin1") == ("iso8859-1", 0)
